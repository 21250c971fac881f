//! The places that queues keep while nothing waits.

use std::collections::VecDeque;

/// The most places that an empty queue keeps.
pub(crate) const FEW: usize = 64;

/// Gives up the places that an empty queue has from a burst.
pub(crate) fn shrink<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > FEW {
        *queue = VecDeque::new();
    }
}
