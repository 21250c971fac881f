//! Units that sources hold at the same time, such as requests in progress or bytes of bodies.

use std::{hash::BuildHasher, net::IpAddr};

use super::{
    Refusal,
    source::{Source, Tally},
};

/// Units that are held, by source. The hasher is that of [`Tally`].
#[derive(Clone, Debug)]
pub struct Shares<S> {
    all: usize,
    per_source: usize,
    held: usize,
    by_source: Tally<S>,
}

impl<S: BuildHasher + Default> Shares<S> {
    /// Allows at most `all` units, and `per_source` of them for one source. The sources of an IPv6 /64 have three times
    /// as many, but no more than three quarters of all.
    #[must_use]
    pub fn new(all: usize, per_source: usize) -> Self {
        Self { all, per_source, held: 0, by_source: Tally::default() }
    }

    /// Takes units for a source.
    ///
    /// # Errors
    /// [`Refusal::SourceFull`] if the source or its network would hold too many, [`Refusal::Full`] if all would. Nothing
    /// is taken.
    pub fn take(&mut self, source: IpAddr, units: usize) -> Result<(), Refusal> {
        let source = Source::of(source);
        if !self.by_source.fits(source, units, (self.per_source, self.all)) {
            return Err(Refusal::SourceFull);
        }
        let held = self.held.saturating_add(units);
        if held > self.all {
            return Err(Refusal::Full);
        }
        self.held = held;
        self.by_source.add(source, units);
        Ok(())
    }

    /// Returns units that a source has taken.
    pub fn give_back(&mut self, source: IpAddr, units: usize) {
        self.held = self.held.saturating_sub(units);
        self.by_source.remove(Source::of(source), units);
    }

    /// Units that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Number of sources that hold units.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.by_source.sources()
    }
}
