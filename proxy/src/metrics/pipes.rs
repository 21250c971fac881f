//! Series of the pipes for splicing.

use prometheus_client::encoding::DescriptorEncoder;

use super::{family, single};
use crate::pipes::{NoPipe, Pipes};

/// The pipes of the process, and the streams that had one or none.
pub(super) fn pipes_text(out: &mut DescriptorEncoder<'_>, pipes: &Pipes) -> Result<(), std::fmt::Error> {
    let help = "Streams that were spliced through a pipe, without a copy through user space.";
    single(out, ("portlane_streams_spliced", help), true, pipes.spliced())?;
    let copied = NoPipe::ALL.map(|why| (vec![("reason", why.as_str())], pipes.copied(why)));
    let help = "Streams that were copied through user space because no pipe was available, by reason.";
    family(out, ("portlane_streams_copied", help), true, copied.into_iter())?;
    let (bytes, limit) = pipes.usage();
    let gauges = [
        ("portlane_pipes", "Pipes for splicing, in use or idle.", pipes.count()),
        ("portlane_pipe_bytes", "Size of all pipes for splicing together.", bytes),
        ("portlane_pipe_limit_bytes", "Limit of portlane_pipe_bytes.", limit),
    ];
    for (name, help, value) in gauges {
        single(out, (name, help), false, value as u64)?;
    }
    Ok(())
}
