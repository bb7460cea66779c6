//! What the fuzz target does, on frames that are made here: it runs with every test run, from a seed.

use proptest::prelude::*;

use crate::{cases, transcript};

/// Frames in an ordinary run; `FOREBAY_FUZZ_FRAMES` asks for more.
const FRAMES: u64 = 200_000;

#[test]
fn mutated_frames_are_survived() {
    let frames = std::env::var("FOREBAY_FUZZ_FRAMES")
        .map_or(FRAMES, |frames| frames.parse().expect("FOREBAY_FUZZ_FRAMES is a number of frames"));
    let mut maker = FrameMaker::new(SEED);
    for _ in 0..frames {
        transcript::exercise(maker.next_frame());
    }
}

const SEED: u64 = 0x6f72_6562_6179;

/// Frames as an attacker would make them: those that Redis has an opinion on, cut, glued and altered.
struct FrameMaker {
    random: SplitMix,
    seeds: Vec<Vec<u8>>,
    frame: Vec<u8>,
}

/// Frames longer than this teach nothing and take long.
const FRAME_MAX: usize = 256;

impl FrameMaker {
    fn new(seed: u64) -> Self {
        let mut seeds: Vec<_> = cases::cases().into_iter().map(|case| case.stream).collect();
        seeds.retain(|stream| stream.len() <= FRAME_MAX);
        Self { random: SplitMix(seed), seeds, frame: Vec::new() }
    }

    fn next_frame(&mut self) -> &[u8] {
        let switches = self.random.below(256) as u8 & self.random.below(256) as u8;
        self.frame.clear();
        self.frame.extend([switches, self.random.below(256) as u8, self.random.below(16) as u8]);
        for _ in 0..=self.random.below(3) {
            let seed = self.random.below(self.seeds.len());
            self.frame.extend_from_slice(&self.seeds[seed]);
        }
        for _ in 0..self.random.below(6) {
            self.mutate();
        }
        &self.frame
    }

    fn mutate(&mut self) {
        let at = HEADER + self.random.below((self.frame.len() - HEADER).max(1));
        let end = (at + self.random.below(16)).min(self.frame.len());
        let byte = self.telling_byte();
        match self.random.below(5) {
            _ if at >= self.frame.len() => self.frame.push(byte),
            0 => self.frame[at] = byte,
            1 => self.frame.insert(at, byte),
            2 => drop(self.frame.drain(at..end)),
            3 => self.frame.truncate(at),
            _ => self.frame.extend_from_within(at..end),
        }
    }

    /// Mostly a byte that means something on the wire.
    fn telling_byte(&mut self) -> u8 {
        const TELLING: &[u8] = b"*$\r\n0123456789-+ \"'\\x\0";
        match self.random.below(TELLING.len() + 4) {
            index if index < TELLING.len() => TELLING[index],
            _ => self.random.below(256) as u8,
        }
    }
}

/// Bytes at the front of a frame that choose limits and chunks.
const HEADER: usize = 3;

/// Steele, Lea and Flood's generator: the same frames from the same seed, everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

proptest! {
    #[test]
    fn random_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..512)) {
        transcript::exercise(&data);
    }

    /// Bytes drawn from those that mean something get much deeper than any bytes do.
    #[test]
    fn random_wire_letters_are_survived(
        header in any::<[u8; HEADER]>(),
        text in prop::collection::vec(prop::sample::select(&b"*$$\r\r\n\n0123-\"'\\ xA"[..]), 0..200),
    ) {
        transcript::exercise(&[&header[..], &text].concat());
    }
}
