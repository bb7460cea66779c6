//! Requests of a pipeline that were sent to their owners before their turn, so that all of them are under way at the same time.
//!
//! The replies are written in the order of the requests. A request whose keys are here, or that is not simply forwarded, waits for its
//! turn; behind one that is neither, nothing is sent ahead, for it might be overtaken.

use std::collections::VecDeque;

use bytes::Bytes;
use forebay_cluster::peer::{Call, CallError};

use super::forward::{self, Outcome};
use crate::command::table::Command;
use crate::node::Node;

/// What is known of the requests from the next one on, and what was sent of them.
#[derive(Default)]
pub struct Ahead {
    order: VecDeque<Sent>,
    groups: Vec<Group>,
}

/// Where a request is.
#[derive(Clone, Copy)]
enum Sent {
    /// Not sent: its turn is to come.
    Here,
    /// In this group.
    There(usize),
}

enum Group {
    Waiting(Call),
    Answered(Bytes),
    Failed(CallError),
}

/// What is to be done with the next request.
pub(super) enum Next {
    /// Its turn has come: run it.
    Run,
    /// Its group is not answered yet.
    Wait,
    /// It was run, or was to be, by its owner.
    Outcome(Outcome),
}

impl Ahead {
    /// How many requests it knows of.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn keep(&mut self) {
        self.order.push_back(Sent::Here);
    }

    /// `group` counts from the number that [`Self::groups`] told before the first of these.
    pub(super) fn send(&mut self, group: usize) {
        self.order.push_back(Sent::There(group));
    }

    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// A group was sent, or could not be.
    pub(super) fn sent(&mut self, call: Option<Call>) {
        let alone = || Group::Failed(CallError::Unreachable("this node is alone".to_owned()));
        self.groups.push(call.map_or_else(alone, Group::Waiting));
    }

    /// Takes the next request's place.
    pub(super) fn next(&mut self, command: &Command, epoch: u64) -> Next {
        let group = match self.order.front() {
            None => return Next::Run,
            Some(Sent::Here) => {
                self.order.pop_front();
                return Next::Run;
            }
            Some(Sent::There(group)) => *group,
        };
        let outcome = match &mut self.groups[group] {
            Group::Waiting(_) => return Next::Wait,
            Group::Failed(error) => forward::unanswered(error, command, epoch),
            // An answer that cannot be read tells nothing of what was run.
            Group::Answered(answers) => {
                forward::take(answers).unwrap_or_else(|| forward::unanswered(&CallError::Broken, command, epoch))
            }
        };
        self.order.pop_front();
        Next::Outcome(outcome)
    }

    /// Waits until the next request's group is answered.
    pub(super) async fn answered(&mut self, node: &Node) {
        let Some(Sent::There(group)) = self.order.front().copied() else { return };
        if let Group::Waiting(call) = &mut self.groups[group] {
            self.groups[group] = match forward::answers_of(node, call).await {
                Ok(answers) => Group::Answered(answers),
                Err(error) => Group::Failed(error),
            };
        }
    }
}
