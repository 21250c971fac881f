//! Listeners of one socket by server name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::core::sessions::client_hello;

/// Listeners of one socket by server name.
#[derive(Debug)]
pub struct ServerNames<T> {
    table: BTreeMap<String, Arc<T>>,
    first: Arc<T>,
}

impl<T> ServerNames<T> {
    /// Builds a table of listeners with their names. The first one with a name has it. `None`: there is no listener.
    pub fn of(listeners: impl IntoIterator<Item = (Arc<T>, Vec<String>)>) -> Option<Self> {
        let (mut table, mut first) = (BTreeMap::new(), None);
        for (listener, names) in listeners {
            for name in names {
                table.entry(name).or_insert_with(|| listener.clone());
            }
            first.get_or_insert(listener);
        }
        Some(Self { table, first: first? })
    }

    /// The first listener.
    #[must_use]
    pub fn first(&self) -> &Arc<T> {
        &self.first
    }

    /// The listener for a server name: exact match first, then the longest wildcard.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<&Arc<T>> {
        client_hello::candidates(host).find_map(|name| self.table.get(&name))
    }

    /// The listeners that have a name, each once.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<T>> {
        let mut seen = BTreeSet::new();
        self.table.values().filter(move |listener| seen.insert(Arc::as_ptr(listener)))
    }

    /// Whether both have the same listeners for the same names.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let mut pairs = self.table.iter().zip(&other.table);
        self.table.len() == other.table.len()
            && Arc::ptr_eq(&self.first, &other.first)
            && pairs.all(|(one, other)| one.0 == other.0 && Arc::ptr_eq(one.1, other.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Listener = Arc<&'static str>;

    /// A table of these listeners.
    fn table<const N: usize>(listeners: [(&Listener, &[&str]); N]) -> ServerNames<&'static str> {
        let named = listeners.map(|(listener, names)| {
            (listener.clone(), names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>())
        });
        ServerNames::of(named).expect("a listener")
    }

    #[test]
    fn a_socket_without_listeners_has_no_table() {
        assert!(ServerNames::<()>::of([]).is_none());
    }

    #[test]
    fn the_exact_name_is_found_before_the_longest_wildcard() {
        let [a, b, c] = ["a", "b", "c"].map(Arc::new);
        let table = table([(&a, &["*.example"]), (&b, &["*.x.example", "x.example"]), (&c, &["y.x.example"])]);
        let found = ["y.x.example", "z.x.example", "x.example", "z.example", "example"]
            .map(|host| table.find(host).map(|listener| **listener));
        assert_eq!(found, [Some("c"), Some("b"), Some("b"), Some("a"), None]);
    }

    #[test]
    fn the_first_listener_keeps_a_name_that_others_have_too() {
        let [a, b] = ["a", "b"].map(Arc::new);
        let table = table([(&b, &["one"]), (&a, &["one", "two"])]);
        assert!(Arc::ptr_eq(table.first(), &b));
        let found = ["one", "two"].map(|host| table.find(host).map(|listener| **listener));
        assert_eq!(found, [Some("b"), Some("a")]);
    }

    #[test]
    fn a_listener_with_several_names_is_listed_once() {
        let [a, b] = ["a", "b"].map(Arc::new);
        let table = table([(&a, &["1", "3"]), (&b, &["2", "4"])]);
        assert_eq!(table.listeners().map(|listener| **listener).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn tables_are_the_same_with_the_same_listeners_for_the_same_names() {
        let [a, b, again] = ["a", "b", "a"].map(Arc::new);
        let one = table([(&a, &["1"]), (&b, &["2"])]);
        assert!(one.is_same(&table([(&a, &["1"]), (&b, &["2"])])));
        let others = [
            table([(&b, &["2"]), (&a, &["1"])]),
            table([(&a, &["1", "3"]), (&b, &["2"])]),
            table([(&a, &["1"]), (&b, &[])]),
            table([(&a, &["2"]), (&b, &["1"])]),
            table([(&a, &["1"]), (&b, &["3"])]),
            table([(&a, &["1"]), (&again, &["2"])]),
        ];
        assert_eq!(others.iter().filter(|other| one.is_same(other)).count(), 0);
        let (first, second) = (table([(&a, &["1"])]), table([(&again, &["1"])]));
        assert!(!first.is_same(&second), "another listener with equal content");
    }
}
