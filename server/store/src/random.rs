//! Random bits that are cheap and need not be secret.

/// Xorshift (G. Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003) with a final multiplication
/// (xorshift64*), so that the low bits are good too.
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // The state must not be zero; the constant keeps small seeds apart.
        Random { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
