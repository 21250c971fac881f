//! The view of `top` on a terminal: the effects of keys, and the lines of the report that are shown.

use std::{cmp::Ordering, ops::Range};

use super::{Row, order};

/// The order of the rows. Rows that are equal in this order are in that of [`Sort::Sessions`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Most sessions first.
    #[default]
    Sessions,
    /// Most new sessions a second first.
    New,
    /// Most bytes a second first.
    Bytes,
    /// Rows that need attention first.
    Health,
    /// By name.
    Name,
}

impl Sort {
    /// The name of the order.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::New => "new/s",
            Self::Bytes => "bytes/s",
            Self::Health => "health",
            Self::Name => "name",
        }
    }

    /// The order by the column to the right, which wraps to the first.
    fn right(self) -> Self {
        match self {
            Self::Sessions => Self::New,
            Self::New => Self::Bytes,
            Self::Bytes => Self::Health,
            Self::Health => Self::Name,
            Self::Name => Self::Sessions,
        }
    }

    /// The order by the column to the left, which wraps to the last.
    fn left(self) -> Self {
        match self {
            Self::Sessions => Self::Name,
            Self::New => Self::Sessions,
            Self::Bytes => Self::New,
            Self::Health => Self::Bytes,
            Self::Name => Self::Health,
        }
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let first = match self {
            Self::Sessions => Ordering::Equal,
            // Unknown rates come last.
            Self::New => b.load.new_per_second.cmp(&a.load.new_per_second),
            Self::Bytes => b.load.bytes_per_second.cmp(&a.load.bytes_per_second),
            Self::Health => b.outcome.cmp(&a.outcome).then_with(|| a.health.cmp(&b.health)),
            Self::Name => a.name.cmp(&b.name),
        };
        first.then_with(|| order(a, b))
    }
}

/// Keys that change the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// One line towards the start.
    Up,
    /// One line towards the end.
    Down,
    /// One screen towards the start.
    PageUp,
    /// One screen towards the end.
    PageDown,
    /// To the start.
    Home,
    /// To the end.
    End,
    /// Sort by the column to the right.
    SortRight,
    /// Sort by the column to the left.
    SortLeft,
}

/// The number of lines, and of those that fit on the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Lines that can be scrolled.
    pub lines: usize,
    /// Lines that are shown at a time.
    pub room: usize,
}

impl Extent {
    /// The first line of the last screen.
    fn last(self) -> usize {
        self.lines.saturating_sub(self.room)
    }
}

/// The order of the rows, and the scroll position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The order of the rows.
    pub sort: Sort,
    /// The first line that is shown, if there are enough.
    first: usize,
}

impl View {
    /// The view after a key. A new order is shown from its start.
    #[must_use]
    pub fn press(self, key: Key, extent: Extent) -> Self {
        let (last, page) = (extent.last(), extent.room.saturating_sub(1).max(1));
        // There may be fewer lines, or more room, than when the view was scrolled.
        let first = self.first.min(last);
        let first = match key {
            Key::Up => first.saturating_sub(1),
            Key::Down => first.saturating_add(1),
            Key::PageUp => first.saturating_sub(page),
            Key::PageDown => first.saturating_add(page),
            Key::Home | Key::SortRight | Key::SortLeft => 0,
            Key::End => last,
        };
        let sort = match key {
            Key::SortRight => self.sort.right(),
            Key::SortLeft => self.sort.left(),
            _ => self.sort,
        };
        Self { sort, first: first.min(last) }
    }

    /// The lines that are shown.
    pub fn visible(self, extent: Extent) -> Range<usize> {
        let first = self.first.min(extent.last());
        first..first.saturating_add(extent.room).min(extent.lines)
    }

    /// The rows of a kind in the order of the view.
    pub fn sorted(self, rows: &[Row]) -> Vec<Row> {
        let mut rows = rows.to_vec();
        rows.sort_by(|a, b| self.sort.compare(a, b));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check::Outcome, top::Load};

    const EXTENT: Extent = Extent { lines: 10, room: 4 };

    fn after(keys: &[Key]) -> View {
        keys.iter().fold(View::default(), |view, key| view.press(*key, EXTENT))
    }

    #[test]
    fn keys_scroll_by_a_line_or_a_screen_and_stop_at_both_ends() {
        use Key::{Down, End, Home, PageDown, PageUp, Up};
        for (keys, shown) in [
            (&[][..], 0..4),
            (&[Up], 0..4),
            (&[PageUp], 0..4),
            (&[Down], 1..5),
            (&[Down, Down, Up], 1..5),
            (&[PageDown], 3..7),
            (&[PageDown, PageDown, PageDown], 6..10),
            (&[End, Down], 6..10),
            (&[End, PageUp], 3..7),
            (&[End, Home], 0..4),
        ] {
            assert_eq!(after(keys).visible(EXTENT), shown, "{keys:?}");
        }
    }

    #[test]
    fn a_view_stays_within_a_report_that_shrinks_and_a_terminal_that_grows() {
        let end = after(&[Key::End]);
        for (extent, shown) in [
            (Extent { lines: 5, room: 4 }, 1..5),
            (Extent { lines: 2, room: 4 }, 0..2),
            (Extent { lines: 10, room: 40 }, 0..10),
            (Extent { lines: 10, room: 0 }, 6..6),
            (Extent::default(), 0..0),
        ] {
            assert_eq!(end.visible(extent), shown, "{extent:?}");
        }
        let shrunk = Extent { lines: 5, room: 4 };
        assert_eq!(end.press(Key::Up, shrunk).visible(shrunk), 0..4, "no key is lost on lines that are not there");
    }

    #[test]
    fn keys_go_around_the_columns_and_show_another_order_from_its_start() {
        let mut orders = vec![View::default().sort];
        for _ in 0..4 {
            let sort = orders.last().copied().unwrap_or_default();
            orders.push(View { sort, first: 0 }.press(Key::SortRight, EXTENT).sort);
        }
        assert_eq!(orders, [Sort::Sessions, Sort::New, Sort::Bytes, Sort::Health, Sort::Name]);
        for sort in orders {
            let there_and_back = View { sort, first: 0 }.press(Key::SortRight, EXTENT).press(Key::SortLeft, EXTENT);
            assert_eq!(there_and_back.sort, sort);
        }
        assert_eq!(after(&[Key::SortLeft, Key::SortRight]), View::default(), "around the ends");
        let scrolled = after(&[Key::End, Key::SortLeft]);
        assert_eq!((scrolled.sort, scrolled.visible(EXTENT)), (Sort::Name, 0..4));
    }

    #[test]
    fn rows_are_in_the_order_of_the_column() {
        let row = |name: &str, sessions, rates: Option<(u64, u64)>, outcome| Row {
            name: name.to_owned(),
            outcome,
            health: "Ready".to_owned(),
            load: Load {
                sessions,
                new_per_second: rates.map(|(new, _)| new),
                bytes_per_second: rates.map(|(_, bytes)| bytes),
                at_least: false,
            },
        };
        let rows = [
            row("b", 9, Some((1, 3)), Outcome::Ok),
            row("d", 7, None, Outcome::Warning),
            row("c", 7, Some((2, 2)), Outcome::Ok),
            row("a", 0, Some((0, 4)), Outcome::Failed),
        ];
        for (sort, expected) in [
            (Sort::Sessions, "bcda"),
            (Sort::New, "cbad"),
            (Sort::Bytes, "abcd"),
            (Sort::Health, "adbc"),
            (Sort::Name, "abcd"),
        ] {
            let sorted = View { sort, first: 0 }.sorted(&rows);
            assert_eq!(sorted.iter().map(|row| row.name.as_str()).collect::<String>(), expected, "{sort:?}");
        }
    }
}
