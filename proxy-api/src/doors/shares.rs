//! What sources hold of something at the same time, such as requests in work or bytes of bodies.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Refusal, source_of};

/// Units that are held, by source.
#[derive(Clone, Debug)]
pub struct Shares {
    all: usize,
    per_source: usize,
    held: usize,
    by_source: BTreeMap<IpAddr, usize>,
}

impl Shares {
    /// At most `all` units, and `per_source` of them for one source.
    #[must_use]
    pub fn new(all: usize, per_source: usize) -> Self {
        Self { all, per_source, held: 0, by_source: BTreeMap::new() }
    }

    /// Takes units for a source.
    ///
    /// # Errors
    /// [`Refusal::SourceFull`] if the source would hold too many, [`Refusal::Full`] if all would. Nothing is taken.
    pub fn take(&mut self, source: IpAddr, units: usize) -> Result<(), Refusal> {
        let source = source_of(source);
        let of_source = self.by_source.get(&source).copied().unwrap_or_default().saturating_add(units);
        if of_source > self.per_source {
            return Err(Refusal::SourceFull);
        }
        let held = self.held.saturating_add(units);
        if held > self.all {
            return Err(Refusal::Full);
        }
        self.held = held;
        self.by_source.insert(source, of_source);
        Ok(())
    }

    /// Gives units of a source back that it has taken.
    pub fn give_back(&mut self, source: IpAddr, units: usize) {
        let source = source_of(source);
        self.held = self.held.saturating_sub(units);
        if let Some(of_source) = self.by_source.get_mut(&source) {
            *of_source = of_source.saturating_sub(units);
            if *of_source == 0 {
                self.by_source.remove(&source);
            }
        }
    }

    /// Units that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Number of sources that hold units.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.by_source.len()
    }
}
