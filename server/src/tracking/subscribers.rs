//! The owner's side: other nodes that listen for what changes here.
//!
//! Each has a token, and a queue of what it is to be told. It fetches that by asking for news again and again; a question is answered as soon as there
//! is something, or after [`SIGN_OF_LIFE`]. A queue that grows too long ends with its token, and so does one that nobody fetches from.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::message::{self, Ask, News, What, put_news};
use super::{Who, Writer};
use crate::node::Node;

/// A question for news is answered after this time even if there are none, so that the listener knows that it is heard.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// Who has not asked for news for this long has gone.
const SILENCE: Duration = Duration::from_secs(10);

/// Listeners at the same time: nodes and frontends, and what is left of those that have just begun anew.
const MAX_SUBSCRIBERS: usize = 1024;

/// What one listener may be behind, in pieces of news and in bytes of their keys.
const MAX_QUEUED: usize = 64 * 1024;
const MAX_QUEUED_BYTES: usize = 16 << 20;

/// About how many bytes one answer tells.
const ANSWER_BYTES: usize = 256 << 10;

#[derive(Default)]
pub struct Subscribers {
    all: RwLock<HashMap<u64, Arc<Subscriber>>>,
    count: AtomicUsize,
    have_prefixes: AtomicBool,
    last: AtomicU64,
}

struct Subscriber {
    /// Its place in the table of interests. The upper half of the token; nobody has it twice.
    number: u64,
    token: u64,
    prefixes: RwLock<Vec<Bytes>>,
    queue: Mutex<Queue>,
    arrived: Notify,
}

struct Queue {
    news: Vec<News>,
    bytes: usize,
    /// It was too long: the listener has to begin anew.
    is_over: bool,
    fetched: Instant,
}

/// What numbers of subscribers and tokens have in common: the number is the token without its random lower half.
const RANDOM_BITS: u32 = 32;

impl Subscribers {
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    pub(super) fn have_prefixes(&self) -> bool {
        self.have_prefixes.load(Relaxed)
    }

    /// Who asks with this token; `None` if it is not one, or not any more.
    pub fn who(&self, token: u64) -> Option<Who> {
        let all = self.all.read();
        all.get(&(token >> RANDOM_BITS)).filter(|one| one.token == token).map(|one| Who::node(one.number))
    }

    /// Tells one listener of a key.
    pub(super) fn tell(&self, number: u64, key: &Bytes, writer: Option<Writer>) {
        if let Some(one) = self.all.read().get(&number) {
            one.put(What::Key(key.clone()), writer);
        }
    }

    /// Tells all who have named a prefix of the key.
    pub(super) fn broadcast(&self, key: &Bytes, writer: Option<Writer>) {
        if self.have_prefixes() {
            for one in self.all.read().values().filter(|one| one.wants(key)) {
                one.put(What::OfPrefix(key.clone()), writer);
            }
        }
    }

    /// Tells all that everything may be old.
    pub(super) fn flushed(&self) {
        for one in self.all.read().values() {
            one.put(What::Everything, None);
        }
    }

    fn begin(&self, prefixes: Vec<Bytes>, now: Instant) -> Option<u64> {
        let mut all = self.all.write();
        all.retain(|_, one| !one.has_gone(now));
        let number = self.last.fetch_add(1, Relaxed) + 1;
        let token = number << RANDOM_BITS | u64::from(rand::random::<u32>());
        let has_room = all.len() < MAX_SUBSCRIBERS;
        if has_room {
            let queue = Mutex::new(Queue { news: Vec::new(), bytes: 0, is_over: false, fetched: now });
            let one = Subscriber { number, token, prefixes: RwLock::new(prefixes), queue, arrived: Notify::new() };
            all.insert(number, Arc::new(one));
        }
        self.note(&all);
        has_room.then_some(token)
    }

    fn set_prefixes(&self, token: u64, prefixes: Vec<Bytes>) -> bool {
        let all = self.all.write();
        let Some(one) = all.get(&(token >> RANDOM_BITS)).filter(|one| one.token == token) else { return false };
        *one.prefixes.write() = prefixes;
        self.note(&all);
        true
    }

    fn find(&self, token: u64) -> Option<Arc<Subscriber>> {
        self.all.read().get(&(token >> RANDOM_BITS)).filter(|one| one.token == token).map(Arc::clone)
    }

    /// Forgets who has gone. Tells whether somebody has.
    fn clear_up(&self, now: Instant) -> bool {
        let mut all = self.all.write();
        let before = all.len();
        all.retain(|_, one| !one.has_gone(now));
        self.note(&all);
        all.len() < before
    }

    fn note(&self, all: &HashMap<u64, Arc<Subscriber>>) {
        self.count.store(all.len(), Relaxed);
        self.have_prefixes.store(all.values().any(|one| !one.prefixes.read().is_empty()), Relaxed);
    }
}

impl Subscriber {
    fn wants(&self, key: &[u8]) -> bool {
        self.prefixes.read().iter().any(|prefix| key.starts_with(prefix))
    }

    fn put(&self, what: What, writer: Option<Writer>) {
        let quiet = writer.filter(|writer| writer.who == Who::node(self.number)).map_or(0, |writer| writer.client);
        let mut queue = self.queue.lock();
        queue.bytes += match &what {
            What::Key(key) | What::OfPrefix(key) => key.len(),
            What::Everything => 0,
        };
        queue.is_over |= queue.news.len() >= MAX_QUEUED || queue.bytes > MAX_QUEUED_BYTES;
        match queue.is_over {
            true => queue.news = Vec::new(),
            false => queue.news.push(News { what, quiet }),
        }
        drop(queue);
        self.arrived.notify_one();
    }

    fn has_gone(&self, now: Instant) -> bool {
        let queue = self.queue.lock();
        queue.is_over || now.duration_since(queue.fetched) > SILENCE
    }

    /// Waits for news, if need be. `None` when there were too many.
    async fn fetch(&self) -> Option<BytesMut> {
        if let Some(answer) = self.fetch_now()? {
            return Some(answer);
        }
        // The permit stays until it is used, so news that come in between are seen.
        let _in_time = tokio::time::timeout(SIGN_OF_LIFE, self.arrived.notified()).await;
        Some(self.fetch_now()?.unwrap_or_else(message::known))
    }

    fn fetch_now(&self) -> Option<Option<BytesMut>> {
        let mut queue = self.queue.lock();
        queue.fetched = Instant::now();
        if queue.is_over {
            return None;
        }
        if queue.news.is_empty() {
            return Some(None);
        }
        let mut answer = message::known();
        let told = queue.news.iter().take_while(|news| {
            let fits = answer.len() < ANSWER_BYTES;
            if fits {
                put_news(&mut answer, news);
            }
            fits
        });
        let told = told.count();
        queue.news.drain(..told);
        if queue.news.is_empty() {
            queue.bytes = 0;
        } else {
            self.arrived.notify_one();
        }
        Some(Some(answer))
    }
}

/// Answers a listener.
pub async fn answer(node: Arc<Node>, request: Bytes) -> BytesMut {
    let subscribers = &node.tracking.subscribers;
    match Ask::read(request) {
        None => BytesMut::new(),
        Some(Ask::Begin { prefixes }) => {
            let token = subscribers.begin(prefixes, Instant::now());
            node.tracking.decide(&node);
            token.map_or_else(message::unknown, message::begun)
        }
        Some(Ask::Prefixes { token, prefixes }) => match subscribers.set_prefixes(token, prefixes) {
            true => message::known(),
            false => message::unknown(),
        },
        Some(Ask::News { token }) => {
            let news = match subscribers.find(token) {
                Some(one) => one.fetch().await,
                None => None,
            };
            news.unwrap_or_else(message::unknown)
        }
    }
}

/// Forgets listeners that have gone.
pub(super) fn clear_up(node: &Node) {
    let subscribers = &node.tracking.subscribers;
    if !subscribers.is_empty() && subscribers.clear_up(Instant::now()) {
        node.tracking.decide(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(subscribers: &Subscribers, token: u64) -> Vec<What> {
        let one = subscribers.find(token).expect("it is known");
        let answer = one.fetch_now().expect("not too much").unwrap_or_else(message::known).freeze();
        let news = message::of_known(answer).and_then(message::take_news).expect("news");
        news.into_iter().map(|news| news.what).collect()
    }

    #[test]
    fn a_listener_is_told_what_it_wants_in_its_order() {
        let (subscribers, now) = (Subscribers::default(), Instant::now());
        let token = subscribers.begin(vec![Bytes::from("p:")], now).expect("room");
        let number = token >> RANDOM_BITS;
        let key = Bytes::from("k");
        subscribers.tell(number, &key, None);
        subscribers.broadcast(&Bytes::from("q:1"), None);
        subscribers.broadcast(&Bytes::from("p:1"), None);
        subscribers.flushed();
        let all = [What::Key(key), What::OfPrefix(Bytes::from("p:1")), What::Everything];
        assert_eq!(told(&subscribers, token), all);
        assert_eq!(told(&subscribers, token), []);
        assert!(subscribers.set_prefixes(token, Vec::new()) && !subscribers.have_prefixes());
    }

    #[test]
    fn a_token_that_nobody_fetches_by_ends_and_is_not_given_again() {
        let (subscribers, now) = (Subscribers::default(), Instant::now());
        let token = subscribers.begin(Vec::new(), now).expect("room");
        assert_eq!(subscribers.who(token), Some(Who::node(token >> RANDOM_BITS)));
        assert_eq!(subscribers.who(token ^ 1), None);
        assert!(!subscribers.clear_up(now + SILENCE));
        assert!(subscribers.clear_up(now + SILENCE + Duration::from_millis(1)) && subscribers.is_empty());
        assert_eq!(subscribers.who(token), None);
        let later = subscribers.begin(Vec::new(), now).expect("room");
        assert_ne!(later >> RANDOM_BITS, token >> RANDOM_BITS);
    }

    #[test]
    fn who_is_too_far_behind_has_to_begin_anew() {
        let (subscribers, now) = (Subscribers::default(), Instant::now());
        let token = subscribers.begin(Vec::new(), now).expect("room");
        for _ in 0..=MAX_QUEUED {
            subscribers.tell(token >> RANDOM_BITS, &Bytes::from("k"), None);
        }
        assert!(subscribers.find(token).expect("not cleared up yet").fetch_now().is_none());
        assert!(subscribers.clear_up(now));
    }

    #[test]
    fn who_is_not_to_be_told_of_its_own_changes_is_named() {
        let (subscribers, now) = (Subscribers::default(), Instant::now());
        let [one, other] = [0, 1].map(|_| subscribers.begin(Vec::new(), now).expect("room"));
        let writer = subscribers.who(one).map(|who| Writer { who, client: 5 });
        for (token, quiet) in [(one, 5), (other, 0)] {
            subscribers.tell(token >> RANDOM_BITS, &Bytes::from("k"), writer);
            let found = subscribers.find(token).expect("it is known");
            assert_eq!(found.queue.lock().news[0].quiet, quiet);
        }
    }
}
