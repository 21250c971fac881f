//! Randomness from a seed: the same seed gives the same run.

#![allow(dead_code, reason = "each test uses some of these functions")]

use std::time::Duration;

/// `SplitMix64`.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From `least` up to, but not including, `bound`.
    pub(crate) fn between(&mut self, least: u64, bound: u64) -> u64 {
        least + self.draw() % (bound - least)
    }

    pub(crate) fn millis(&mut self, least: u64, bound: u64) -> Duration {
        Duration::from_millis(self.between(least, bound))
    }

    /// From 0 up to, but not including, 1.
    pub(crate) fn part(&mut self) -> f64 {
        let bits = u32::try_from(self.draw() >> 32).expect("32 bits are left");
        f64::from(bits) / 4_294_967_296.0
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.between(0, 100) < percent
    }
}
