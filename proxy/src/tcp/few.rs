//! A list with one item in most sessions.

use std::ops::{Deref, DerefMut};

/// A list without a block of its own until it has a second item.
#[derive(Debug)]
pub enum Few<T> {
    /// At most one item.
    UpToOne(Option<T>),
    /// There have been several.
    Several(Vec<T>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::UpToOne(None)
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::UpToOne(item) => item.as_slice(),
            Self::Several(items) => items,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::UpToOne(item) => item.as_mut_slice(),
            Self::Several(items) => items,
        }
    }
}

impl<T> Few<T> {
    /// Adds an item at the end.
    pub fn push(&mut self, item: T) {
        match self {
            Self::UpToOne(only @ None) => *only = Some(item),
            Self::UpToOne(first) => *self = Self::Several(first.take().into_iter().chain([item]).collect()),
            Self::Several(items) => items.push(item),
        }
    }

    /// Takes the item at this position, if there is one. The last item takes its place.
    pub fn swap_remove(&mut self, at: usize) -> Option<T> {
        match self {
            Self::UpToOne(only) => only.take_if(|_| at == 0),
            Self::Several(items) => (at < items.len()).then(|| items.swap_remove(at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_its_items_in_order_and_needs_a_block_for_the_second() {
        let mut few = Few::<u32>::default();
        assert!(few.is_empty());
        few.push(1);
        assert!(matches!(few, Few::UpToOne(Some(1))) && *few == [1]);
        few.push(2);
        few.push(3);
        few[0] = 10;
        assert_eq!(*few, [10, 2, 3]);
    }

    #[test]
    fn an_item_is_taken_once() {
        let mut few = Few::<u32>::default();
        few.push(1);
        assert_eq!((few.swap_remove(1), few.swap_remove(0), few.swap_remove(0)), (None, Some(1), None));
        for item in 1..=3 {
            few.push(item);
        }
        assert_eq!((few.swap_remove(0), few.swap_remove(2)), (Some(1), None));
        assert_eq!(*few, [3, 2]);
    }
}
