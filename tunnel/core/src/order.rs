//! The address of a server that an agent tries first.

/// The order in which the addresses of a server are tried: the given one, rotated so that the address that last led to
/// the server comes first. A load balancer without a server behind it accepts connections and closes them, so only the
/// data after the connection tells which address that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    first: usize,
}

impl Order {
    /// The addresses in the order of the next attempt.
    pub fn of<T: Clone>(self, addresses: &[T]) -> Vec<T> {
        let (before, from) = addresses.split_at(self.first.min(addresses.len()));
        [from, before].concat()
    }

    /// Notes that the server answered at an address: the next attempt begins there.
    pub fn works<T: PartialEq>(&mut self, addresses: &[T], address: &T) {
        if let Some(at) = position(addresses, address) {
            self.first = at;
        }
    }

    /// Notes that an address accepted the connection without an answer of a server: the next one comes first.
    pub fn fails<T: PartialEq>(&mut self, addresses: &[T], address: &T) {
        if let Some(at) = position(addresses, address) {
            self.first = (at + 1) % addresses.len();
        }
    }
}

fn position<T: PartialEq>(addresses: &[T], address: &T) -> Option<usize> {
    addresses.iter().position(|known| known == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [char; 3] = ['a', 'b', 'c'];

    #[test]
    fn an_attempt_begins_after_the_address_that_failed_and_comes_back_to_the_first_one() {
        let mut order = Order::default();
        assert_eq!(order.of(&ALL), ['a', 'b', 'c']);
        for (failed, expected) in [('a', "bca"), ('b', "cab"), ('c', "abc")] {
            order.fails(&ALL, &failed);
            assert_eq!(order.of(&ALL).iter().collect::<String>(), expected);
        }
    }

    #[test]
    fn two_attempts_that_fail_at_one_address_skip_no_other() {
        let mut order = Order::default();
        order.fails(&ALL, &'a');
        order.fails(&ALL, &'a');
        assert_eq!(order.of(&ALL), ['b', 'c', 'a']);
    }

    #[test]
    fn attempts_stay_with_the_address_that_works() {
        let mut order = Order::default();
        order.works(&ALL, &'c');
        assert_eq!(order.of(&ALL), ['c', 'a', 'b']);
        order.works(&ALL, &'x');
        order.fails(&ALL, &'x');
        assert_eq!(order.of(&ALL), ['c', 'a', 'b'], "an address that is not known changes nothing");
        assert!(order.of::<char>(&[]).is_empty());
    }
}
