//! Who has subscribed to which channel.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use crate::clients::{Client, ClientId};

/// The channels of a node that somebody has subscribed to. The same stands in [`Client::subscriptions`].
#[derive(Default)]
pub struct Channels {
    subscribers: RwLock<HashMap<Box<[u8]>, BTreeSet<ClientId>, RandomState>>,
}

impl Channels {
    /// Tells how many channels the client has subscribed to by then.
    pub fn subscribe(&self, client: &Client, channel: &[u8]) -> usize {
        let mut own = client.subscriptions.lock();
        if own.insert(channel.into()) {
            self.subscribers.write().entry(channel.into()).or_default().insert(client.id);
        }
        own.len()
    }

    /// Tells how many channels the client has subscribed to by then.
    pub fn unsubscribe(&self, client: &Client, channel: &[u8]) -> usize {
        let mut own = client.subscriptions.lock();
        if own.remove(channel) {
            let mut subscribers = self.subscribers.write();
            if let Some(others) = subscribers.get_mut(channel) {
                others.remove(&client.id);
                if others.is_empty() {
                    subscribers.remove(channel);
                }
            }
        }
        own.len()
    }

    /// The connection has ended, or is to be as a new one.
    pub fn leave(&self, client: &Client) {
        let own: Vec<_> = client.subscriptions.lock().iter().cloned().collect();
        for channel in own {
            self.unsubscribe(client, &channel);
        }
    }

    /// How many channels have subscribers.
    pub fn len(&self) -> usize {
        self.subscribers.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn a_channel_is_there_as_long_as_somebody_listens() {
        let (clients, channels) = (crate::clients::Clients::default(), Channels::default());
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let [one, other] = [0, 1].map(|_| clients.admit(9, address, address, 3, 0).expect("room"));
        assert_eq!(channels.subscribe(&one, b"a"), 1);
        assert_eq!(channels.subscribe(&one, b"a"), 1);
        assert_eq!(channels.subscribe(&one, b"b"), 2);
        assert_eq!(channels.subscribe(&other, b"a"), 1);
        assert_eq!(channels.unsubscribe(&one, b"c"), 2);
        assert_eq!(channels.unsubscribe(&other, b"a"), 0);
        assert_eq!(channels.len(), 2);
        channels.leave(&one);
        assert!(channels.is_empty() && !one.is_subscribed());
    }
}
