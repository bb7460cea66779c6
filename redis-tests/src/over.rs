//! The end of clients that ask in threads of a scope until a flag is set: a test that fails before it has set the flag would otherwise wait
//! for them for ever, and nobody would hear why.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Ends the clients that look at the flag when it is dropped, thus also when the test fails.
#[must_use = "the clients end at once"]
pub struct Over<'o>(&'o AtomicBool);

impl<'o> Over<'o> {
    /// Sets `is_over` at its own end.
    pub fn at_end(is_over: &'o AtomicBool) -> Self {
        Self(is_over)
    }
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use super::*;

    #[test]
    fn who_asks_ends_with_a_test_that_fails() {
        let is_over = AtomicBool::new(false);
        let test = || {
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !is_over.load(Relaxed) {
                        thread::yield_now()
                    }
                });
                let _over = Over::at_end(&is_over);
                panic!("the test fails");
            });
        };
        assert!(catch_unwind(AssertUnwindSafe(test)).is_err());
        assert!(is_over.into_inner());
    }
}
