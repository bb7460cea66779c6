//! Prefixes that connections have named (BCAST).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::clients::ClientId;

#[derive(Default)]
pub(super) struct Prefixes(BTreeMap<Bytes, Vec<ClientId>>);

impl Prefixes {
    pub(super) fn add(&mut self, prefix: &Bytes, client: ClientId) {
        let clients = self.0.entry(prefix.clone()).or_default();
        if !clients.contains(&client) {
            clients.push(client);
        }
    }

    pub(super) fn remove(&mut self, client: ClientId) {
        self.0.retain(|_, clients| {
            clients.retain(|other| *other != client);
            !clients.is_empty()
        });
    }

    /// Who has named a prefix of the key. Those of one client do not overlap.
    pub(super) fn of(&self, key: &[u8]) -> Vec<(Bytes, ClientId)> {
        let named = self.0.iter().filter(|(prefix, _)| key.starts_with(prefix));
        named.flat_map(|(prefix, clients)| clients.iter().map(|client| (prefix.clone(), *client))).collect()
    }

    pub(super) fn names(&self) -> Vec<Bytes> {
        self.0.keys().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_to_who_has_named_a_prefix_of_it() {
        let mut prefixes = Prefixes::default();
        for (prefix, client) in [("a:", 1), ("a:", 2), ("b:", 1), ("", 3), ("a:", 1)] {
            prefixes.add(&Bytes::from(prefix), client);
        }
        let clients = |prefixes: &Prefixes, key: &str| -> Vec<ClientId> {
            prefixes.of(key.as_bytes()).into_iter().map(|(_, client)| client).collect()
        };
        assert_eq!(clients(&prefixes, "a:7"), [3, 1, 2]);
        assert_eq!(clients(&prefixes, "c"), [3]);
        prefixes.remove(1);
        assert_eq!((clients(&prefixes, "a:7"), prefixes.len()), (vec![3, 2], 2));
        assert_eq!(clients(&prefixes, "b:"), [3]);
    }
}
