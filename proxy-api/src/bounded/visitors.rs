//! Visitors that decode texts, maps and lists within bounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    marker::PhantomData,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

use super::{MAX_CONNECTED, Name};

/// A text of bounded length.
pub(super) struct Text(pub(super) &'static str, pub(super) usize);

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of at most {} bytes", self.0, self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        if text.len() > self.1 {
            return Err(E::custom(format_args!("{} has {} bytes; the limit is {}", self.0, text.len(), self.1)));
        }
        Ok(text.to_owned())
    }
}

/// Instances by uid, bounded in their sum.
pub(super) struct Connected<V>(pub(super) PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Connected<V> {
    type Value = BTreeMap<String, Vec<V>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX_CONNECTED} instances of agents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        struct Instances<V>(Vec<V>);

        impl<'de, V: Deserialize<'de>> Deserialize<'de> for Instances<V> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let list = List::<V> { most: MAX_CONNECTED, of: PhantomData };
                deserializer.deserialize_seq(list).map(Self)
            }
        }

        let (mut all, mut count) = (BTreeMap::new(), 0);
        while let Some((uid, instances)) = map.next_entry::<Name, Instances<V>>()? {
            // An agent without instances takes memory, too.
            count += instances.0.len().max(1);
            if count > MAX_CONNECTED {
                return Err(too_many(MAX_CONNECTED));
            }
            all.insert(uid.0, instances.0);
        }
        Ok(all)
    }
}

fn too_many<E: de::Error>(most: usize) -> E {
    E::custom(format_args!("more than {most} items in one message"))
}

pub(super) struct Map<K, V> {
    pub(super) most: usize,
    pub(super) of: PhantomData<(K, V)>,
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Map<K, V> {
    type Value = BTreeMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of at most {} items", self.most)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((key, value)) = map.next_entry()? {
            if all.len() == self.most {
                return Err(too_many(self.most));
            }
            all.insert(key, value);
        }
        Ok(all)
    }
}

pub(super) struct Set<K> {
    pub(super) most: usize,
    pub(super) of: PhantomData<K>,
}

impl<'de, K: Deserialize<'de> + Ord> Visitor<'de> for Set<K> {
    type Value = BTreeSet<K>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} items", self.most)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeSet::new();
        while let Some(item) = list.next_element()? {
            if all.len() == self.most {
                return Err(too_many(self.most));
            }
            all.insert(item);
        }
        Ok(all)
    }
}

pub(super) struct List<T> {
    pub(super) most: usize,
    pub(super) of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} items", self.most)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = list.next_element()? {
            if all.len() == self.most {
                return Err(too_many(self.most));
            }
            all.push(item);
        }
        Ok(all)
    }
}
