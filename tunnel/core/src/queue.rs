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
