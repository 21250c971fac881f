//! Text of the cluster in the columns of a terminal.

/// Narrowest column in characters that text is wrapped into: a narrower terminal wraps by itself.
const NARROWEST: usize = 20;

/// Returns the text, or its start with a mark if it has more than `most` characters.
pub(super) fn clipped(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Pads the text with spaces up to this width.
pub(super) fn padded(text: &str, width: usize) -> String {
    // `format!` panics at a width of more than 16 bits, and texts of the cluster may be longer.
    let missing = width.saturating_sub(text.chars().count());
    format!("{text}{}", " ".repeat(missing))
}

/// Wraps the text in lines that end before `width`. All but the first line begin with `margin` spaces: the caller has
/// written as many characters in front of the first line.
pub(super) fn wrapped(text: &str, margin: usize, width: Option<usize>) -> String {
    let Some(room) = width.map(|width| width.saturating_sub(margin)).filter(|room| *room >= NARROWEST) else {
        return text.to_owned();
    };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join(&format!("\n{}", " ".repeat(margin)))
}

/// A column of a table: its title, and its rank. Where a terminal is too narrow, columns of a high rank are left out
/// first; those of rank 0 stay.
pub(super) type Column<'a> = (&'a str, u8);

/// Spaces between two columns.
const GAP: usize = 2;

/// Characters that are reserved for the text of a last column beside other columns, if it continues on further lines.
const FLOW: usize = 12;

/// A column that is shown: its index in the rows, its width in characters, and its rank.
type Shown = (usize, usize, u8);

/// The columns that have text.
fn shown(head: &[Column<'_>], rows: &[(String, Vec<String>)]) -> Vec<Shown> {
    let widest = |at: usize| rows.iter().map(|(_, row)| cell(row, at).chars().count()).max().unwrap_or(0);
    let sized = head.iter().enumerate().map(|(at, (title, rank))| (at, widest(at), title.chars().count(), *rank));
    let used = sized.filter(|(_, widest, ..)| *widest > 0);
    used.map(|(at, widest, title, rank)| (at, widest.max(title), rank)).collect()
}

fn cell(row: &[String], at: usize) -> String {
    row.get(at).cloned().unwrap_or_default()
}

/// Width of columns, each with the gap behind it.
fn taken(columns: &[Shown]) -> usize {
    columns.iter().map(|(_, width, _)| width + GAP).sum()
}

/// Leaves out columns by their rank until the rest, each with the gap behind it, fits into `room`.
fn narrow(columns: &mut Vec<Shown>, room: usize) {
    while taken(columns) > room {
        let ranked = columns.iter().enumerate().filter(|(_, (.., rank))| *rank > 0);
        let Some((least, _)) = ranked.max_by_key(|(_, (.., rank))| *rank) else { break };
        columns.remove(least);
    }
}

/// Formats rows in aligned columns, each behind its mark. A column without any text is left out. No line is wider than
/// `width`: columns are left out by their rank, and lines that are still too long are cut.
pub(super) fn fitted(
    head: &[Column<'_>],
    rows: &[(String, Vec<String>)],
    indent: usize,
    width: Option<usize>,
) -> String {
    let mut columns = shown(head, rows);
    let room = width.map(|width| width.saturating_sub(indent + 2));
    if let Some(room) = room {
        narrow(&mut columns, room + GAP);
    }
    let line = |mark: &str, text: &dyn Fn(usize) -> String| {
        let cells: Vec<String> = columns.iter().map(|(at, width, _)| padded(&text(*at), *width)).collect();
        let cells: String = cells.join(&" ".repeat(GAP)).chars().take(room.unwrap_or(usize::MAX)).collect();
        format!("{}{mark} {cells}", " ".repeat(indent)).trim_end().to_owned() + "\n"
    };
    let title = |at: usize| head.get(at).map(|(title, _)| *title).unwrap_or_default().to_owned();
    let mut text = line(" ", &title);
    for (mark, row) in rows {
        text.push_str(&line(mark, &|at| cell(row, at)));
    }
    text
}

/// Like `fitted`, but text of the last column that is too long continues on the lines below.
pub(super) fn flowing(
    head: &[Column<'_>],
    rows: &[(String, Vec<String>)],
    indent: usize,
    width: Option<usize>,
) -> String {
    let (Some(width), Some(((title, _), others))) = (width, head.split_last()) else {
        return fitted(head, rows, indent, width);
    };
    let longest = rows.iter().map(|(_, row)| cell(row, others.len()).chars().count()).max().unwrap_or(0);
    let room = width.saturating_sub(indent + 2);
    let mut columns = shown(others, rows);
    narrow(&mut columns, room.saturating_sub(longest.min(FLOW)));
    let room = room.saturating_sub(taken(&columns));
    let mut lines = Vec::new();
    for (mark, row) in rows {
        let (mut mark, mut row) = (mark.clone(), row.clone());
        for part in broken(&cell(&row, others.len()), room) {
            let cells = columns.iter().map(|(at, ..)| cell(&row, *at)).chain([part]).collect();
            lines.push((std::mem::replace(&mut mark, " ".to_owned()), cells));
            // The lines below have only the text of the last column.
            row.clear();
        }
    }
    let titles = columns.iter().filter_map(|(at, ..)| head.get(*at)).map(|(title, _)| (*title, 0));
    fitted(&titles.chain([(*title, 0)]).collect::<Vec<_>>(), &lines, indent, Some(width))
}

/// Breaks the text into lines of at most `room` characters, between two words where possible.
fn broken(text: &str, room: usize) -> Vec<String> {
    let room = room.max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let letters: Vec<char> = word.chars().collect();
        for (at, part) in letters.chunks(room).enumerate() {
            let part: String = part.iter().collect();
            match lines.last_mut() {
                Some(line) if line.is_empty() => *line = part,
                Some(line) if at == 0 && line.chars().count() + 1 + part.chars().count() <= room => {
                    line.push(' ');
                    line.push_str(&part);
                }
                _ => lines.push(part),
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_any_length_is_a_column_and_can_be_clipped() {
        let long = "ü".repeat(70_000);
        let row = (String::new(), vec![long.clone(), "x".to_owned()]);
        assert!(fitted(&[("A", 0), ("B", 0)], &[row], 0, None).contains(&format!("{long}  x\n")));
        assert_eq!((clipped(&long, 2), clipped("üü", 2)), ("üü…".to_owned(), "üü".to_owned()));
    }

    #[test]
    fn lines_end_before_the_edge_and_begin_at_the_margin() {
        let text = "one two three four five six seven";
        assert_eq!(wrapped(text, 4, Some(26)), "one two three four\n    five six seven");
        assert_eq!(wrapped("one two three four six", 4, Some(26)), "one two three four six", "as wide as the room");
        assert_eq!(wrapped(text, 4, None), text);
        assert_eq!(wrapped(text, 4, Some(10)), text, "a terminal that is too narrow wraps by itself");
        let long = "a".repeat(50);
        assert_eq!(wrapped(&long, 0, Some(30)), long, "a word is not cut");
    }

    #[test]
    fn columns_are_aligned_and_those_without_text_are_left_out() {
        let row = |cells: [&str; 3]| ("*".to_owned(), cells.map(str::to_owned).to_vec());
        let head = [("A", 0), ("NONE", 0), ("B", 0)];
        let text = fitted(&head, &[row(["long", "", "x"]), row(["b", "", "y"])], 1, None);
        assert_eq!(text, "   A     B\n * long  x\n * b     y\n");
    }

    #[test]
    fn a_narrow_terminal_leaves_out_columns_by_rank_and_cuts_the_rest() {
        let rows = [(" ".to_owned(), ["listener", "client", "pod"].map(str::to_owned).to_vec())];
        let head = [("A", 0), ("B", 1), ("C", 2)];
        let lines = |width| fitted(&head, &rows, 0, Some(width)).lines().next_back().unwrap_or_default().to_owned();
        assert_eq!(lines(23), "  listener  client  pod");
        assert_eq!(lines(22), "  listener  client");
        assert_eq!(lines(12), "  listener");
        assert_eq!(lines(6), "  list");
    }

    #[test]
    fn text_of_a_last_column_continues_below_and_other_columns_make_room_for_it() {
        let cells = ["5m", "Warning", "Reason", "one two three-four-five"].map(str::to_owned).to_vec();
        let rows = [("*".to_owned(), cells)];
        let head = [("AGE", 2), ("TYPE", 3), ("REASON", 1), ("MESSAGE", 0)];
        let shown = |width| flowing(&head, &rows, 0, width);
        let beside = |start: &str, margin: usize| format!("{start}one two\n{}three-four-five\n", " ".repeat(margin));
        let all = "  AGE  TYPE     REASON  MESSAGE\n* 5m   Warning  Reason  ";
        assert_eq!(shown(None), format!("{all}one two three-four-five\n"));
        assert_eq!(shown(Some(40)), beside(all, 24));
        assert_eq!(shown(Some(30)), beside("  AGE  REASON  MESSAGE\n* 5m   Reason  ", 15));
        assert_eq!(shown(Some(20)), beside("  MESSAGE\n* ", 2));
        assert_eq!(shown(Some(10)), "  MESSAGE\n* one two\n  three-fo\n  ur-five\n", "a long word is broken");
    }
}
