//! Places for values, used again, with keys that end with their values.

/// Where a value is, and which of all that were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: usize,
    pub(super) generation: u32,
}

pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    /// Slots without a value.
    free: Vec<usize>,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// Adds what is made with its key.
    pub(super) fn insert<E>(&mut self, make: impl FnOnce(Key) -> Result<T, E>) -> Result<(), E> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None });
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        match make(Key { index, generation: slot.generation }) {
            Ok(value) => {
                slot.value = Some(value);
                Ok(())
            }
            Err(error) => {
                self.free.push(index);
                Err(error)
            }
        }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slot(key)?.value.as_mut()
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slot(key)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(value)
    }

    fn slot(&mut self, key: Key) -> Option<&mut Slot<T>> {
        self.slots.get_mut(key.index).filter(|slot| slot.generation == key.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(slots: &mut Slots<char>, value: char) -> Key {
        let mut given = None;
        let inserted: Result<(), ()> = slots.insert(|key| {
            given = Some(key);
            Ok(value)
        });
        inserted.expect("inserted");
        given.expect("a key")
    }

    #[test]
    fn the_key_of_a_removed_value_does_not_find_the_next_one_in_its_place() {
        let mut slots = Slots::new();
        let first = insert(&mut slots, 'a');
        assert_eq!(slots.remove(first), Some('a'));
        let second = insert(&mut slots, 'b');
        assert_eq!(second.index, first.index);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut 'b'));
    }

    #[test]
    fn what_could_not_be_made_takes_no_place() {
        let mut slots = Slots::new();
        assert_eq!(slots.insert(|_| Err("no")), Err("no"));
        let first = insert(&mut slots, 'a');
        let second = insert(&mut slots, 'b');
        assert_eq!([first.index, second.index], [0, 1]);
    }
}
