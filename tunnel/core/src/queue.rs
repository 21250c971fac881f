//! The capacity that idle queues keep.

use std::collections::VecDeque;

/// The largest capacity that an empty queue keeps.
pub(crate) const FEW: usize = 64;

/// Shrinks an empty queue that has kept its capacity from a burst.
pub(crate) fn shrink<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > FEW {
        *queue = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The capacity that a queue with this capacity and these items keeps.
    fn kept(capacity: usize, items: &[u8]) -> usize {
        let mut queue: VecDeque<u8> = VecDeque::with_capacity(capacity);
        queue.extend(items);
        shrink(&mut queue);
        queue.capacity()
    }

    #[test]
    fn a_queue_keeps_room_for_a_few_and_more_while_it_is_in_use() {
        assert_eq!([kept(FEW, &[]), kept(FEW + 1, &[])], [FEW, 0]);
        assert_eq!(kept(FEW + 1, &[1]), FEW + 1);
    }
}
