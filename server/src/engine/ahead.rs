//! Requests of a pipeline that were sent to their owners before their turn, so that all of them are under way at the same time.
//!
//! The replies are written in the order of the requests. A request whose keys are here, or that is not simply forwarded, waits for its
//! turn; behind one that is neither, nothing is sent ahead, for it might be overtaken.

use std::collections::VecDeque;

use bytes::Bytes;
use forebay_cluster::peer::{Call, CallError};
use forebay_cluster::state::Incarnation;
use forebay_resp::Reply;

use super::forward::{self, Outcome, Sent};
use crate::command::table::Command;
use crate::hot::Grant;

/// What is known of the requests from the next one on, and what was sent of them.
#[derive(Default)]
pub struct Ahead {
    order: VecDeque<At>,
    bundles: Vec<Bundle>,
}

/// Where a request is.
enum At {
    /// Not sent: its turn is to come.
    Here,
    /// In this bundle.
    There(usize),
    /// Nowhere: a copy has answered it.
    Copied(Bytes),
}

struct Bundle {
    sent: Sent,
    state: State,
}

enum State {
    Waiting(Call),
    Answered(Bytes),
    Failed(CallError),
}

/// What is to be done with the next request.
pub(super) enum Next {
    /// Its turn has come: run it.
    Run,
    /// Its bundle is not answered yet.
    Wait,
    /// It was run by its owner, and the reply is written.
    Replied { by: Incarnation, failed: bool },
    /// It was run, or was to be, by its owner; the reply may be kept. Nobody was asked if a copy has answered.
    Outcome(Outcome, Option<Grant>, Option<Incarnation>),
}

impl Ahead {
    /// How many requests it knows of.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether it knows of none that is to run here.
    pub(super) fn is_all_there(&self) -> bool {
        self.order.iter().all(|sent| matches!(sent, At::There(_)))
    }

    pub(super) fn keep(&mut self) {
        self.order.push_back(At::Here);
    }

    /// `bundle` counts from the number that [`Self::bundles`] told before the first of these.
    pub(super) fn send(&mut self, bundle: usize) {
        self.order.push_back(At::There(bundle));
    }

    /// A copy has answered the request.
    pub(super) fn copied(&mut self, reply: Bytes) {
        self.order.push_back(At::Copied(reply));
    }

    /// Whether the request at that place has been sent.
    pub(super) fn is_sent(&self, at: usize) -> bool {
        matches!(self.order.get(at), Some(At::There(_)))
    }

    pub(super) fn bundles(&self) -> usize {
        self.bundles.len()
    }

    /// A bundle was sent, or could not be.
    pub(super) fn sent(&mut self, call: Option<Call>, sent: Sent) {
        let alone = || State::Failed(CallError::Unreachable("this node is alone".to_owned()));
        self.bundles.push(Bundle { sent, state: call.map_or_else(alone, State::Waiting) });
    }

    /// Whether a bundle that was sent to `owner` is not answered. An owner keeps the order within a bundle alone, so another one might overtake it.
    pub(super) fn is_awaited(&self, owner: Incarnation) -> bool {
        self.bundles.iter().any(|bundle| bundle.sent.to == owner && matches!(bundle.state, State::Waiting(_)))
    }

    /// Takes the next request's place.
    pub(super) fn next(&mut self, command: &Command, epoch: impl Fn() -> u64, reply: &mut Reply) -> Next {
        let bundle = match self.order.pop_front() {
            None | Some(At::Here) => return Next::Run,
            Some(At::Copied(reply)) => return Next::Outcome(Outcome::Replied(reply), None, None),
            Some(At::There(bundle)) => bundle,
        };
        let Bundle { sent, state } = &mut self.bundles[bundle];
        let by = sent.to;
        match state {
            State::Waiting(_) => {
                self.order.push_front(At::There(bundle));
                Next::Wait
            }
            State::Failed(error) => Next::Outcome(forward::unanswered(error, command, epoch()), None, Some(by)),
            State::Answered(answers) => {
                if let Some(failed) = forward::take_plain(answers, reply) {
                    return Next::Replied { by, failed };
                }
                match forward::take_granted(answers) {
                    Some((outcome, lasts)) => {
                        Next::Outcome(outcome, lasts.map(|lasts| Grant { sent: sent.at, lasts }), Some(by))
                    }
                    // An answer that cannot be read tells nothing of what was run.
                    None => Next::Outcome(forward::unanswered(&CallError::Broken, command, epoch()), None, Some(by)),
                }
            }
        }
    }

    /// Waits until the next request's bundle is answered.
    pub(super) async fn answered(&mut self) {
        let Some(At::There(bundle)) = self.order.front() else { return };
        let state = &mut self.bundles[*bundle].state;
        if let State::Waiting(call) = state {
            *state = match call.await {
                Ok(answers) => State::Answered(answers),
                Err(error) => State::Failed(error),
            };
        }
    }
}
