//! What the hot path may not do: allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use forebay_store::{Access, Expiry, Store, StoreConfig};

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all work is the system allocator's; the counter is a plain cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOW: i64 = 1_000_000;

fn allocations(act: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    act();
    ALLOCATIONS.get() - before
}

#[test]
fn a_hit_allocates_nothing() {
    let store = Store::new(StoreConfig::default());
    let mut scratch = Vec::with_capacity(32);
    for value in ["a short string", "12345", &"x".repeat(5_000), &"y".repeat(50_000)] {
        let key = store.key(0, 7, b"key");
        store.lock(7, NOW).set_string(&key, value.as_bytes(), Expiry::At(NOW + 1_000));
        let during = allocations(|| {
            let key = store.key(0, 7, b"key");
            let mut keyspace = store.lock(7, NOW);
            keyspace.set_access(Access { allow_stale: true, ..Access::default() });
            let string = keyspace.read_string(&key).unwrap().unwrap();
            assert_eq!(string.as_bytes(&mut scratch), value.as_bytes());
        });
        assert_eq!(during, 0, "a string of {} bytes", value.len());
    }
}

#[test]
fn a_miss_allocates_nothing() {
    let store = Store::new(StoreConfig::default());
    let during = allocations(|| {
        let key = store.key(0, 7, b"key");
        assert!(store.lock(7, NOW).read(&key).is_none());
    });
    assert_eq!(during, 0);
}

#[test]
fn replacing_a_value_of_like_size_allocates_nothing() {
    let store = Store::new(StoreConfig::default());
    let key = store.key(0, 7, b"key");
    store.lock(7, NOW).set_string(&key, b"value", Expiry::None);
    assert_eq!(allocations(|| store.lock(7, NOW).set_string(&key, b"other", Expiry::None)), 0);
}
