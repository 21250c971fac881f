//! Writes many bytes in stretches, with pauses.

use std::{
    io::{self, BufWriter, Write},
    thread,
    time::Duration,
};

/// Size of a stretch, in bytes.
const STRETCH: usize = 64 << 10;
/// Pause after a stretch.
const PAUSE: Duration = Duration::from_millis(1);

/// Writes the output of `fill`, with a pause after each stretch. A thread that generates many bytes holds its CPU for
/// long, and others that wake there may wait for a time slice.
pub(super) fn write(to: impl Write, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    write_and(to, fill, give_way)
}

/// Calls `pause` after each stretch.
fn write_and(
    to: impl Write,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    pause: impl FnMut(),
) -> io::Result<()> {
    let mut buffered = BufWriter::with_capacity(STRETCH, Pausing { to, pause });
    fill(&mut buffered)?;
    buffered.flush()
}

/// Pauses after each write.
struct Pausing<W, P> {
    to: W,
    pause: P,
}

impl<W: Write, P: FnMut()> Write for Pausing<W, P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        (self.pause)();
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[allow(clippy::disallowed_methods, reason = "nothing is waited for: the CPU is left to others for a moment")]
fn give_way() {
    thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u32 = 100_000;

    fn fill(to: &mut dyn Write) -> io::Result<()> {
        (0..COUNT).try_for_each(|n| to.write_all(&n.to_le_bytes()))
    }

    #[test]
    fn many_bytes_are_written_in_stretches_with_a_pause_after_each() {
        let (mut written, mut pauses) = (Vec::new(), 0);
        write_and(&mut written, fill, || pauses += 1).expect("memory");
        let expected: Vec<u8> = (0..COUNT).flat_map(u32::to_le_bytes).collect();
        assert!(written == expected, "the bytes in order");
        assert_eq!(pauses, expected.len().div_ceil(STRETCH));
    }

    #[test]
    fn what_is_short_is_written_at_once() {
        let (mut written, mut pauses) = (Vec::new(), 0);
        write_and(&mut written, |to| to.write_all(b"short"), || pauses += 1).expect("memory");
        assert_eq!((written.as_slice(), pauses), (b"short".as_slice(), 1));
    }
}
