//! Chance that can be repeated: numbers that follow from a seed.

use std::time::Duration;

/// SplitMix64: good enough to make plans with, and ten lines.
pub struct Chance(u64);

impl Chance {
    /// That of one run: as unlike that of the next as of any other.
    pub fn of(seed: u64, run: u64) -> Self {
        Self(Self(seed).next() ^ Self(run.wrapping_mul(STEP)).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
