//! How figures are printed.

/// Bytes of a MiB.
pub(crate) const MIB: f64 = (1_u64 << 20) as f64;

/// How a value is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    GibPerSecond,
    SecondsPerGib,
    Micros,
    Millis,
    Seconds,
    Percent,
    Bytes,
    Mebibytes,
    Number,
    Ratio,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "per second",
            Self::GibPerSecond => "GiB/s",
            Self::SecondsPerGib => "s/GiB",
            Self::Micros => "µs",
            Self::Millis => "ms",
            Self::Seconds => "s",
            Self::Percent => "%",
            Self::Bytes => "B",
            Self::Mebibytes => "MiB",
            Self::Number => "number",
            Self::Ratio => "×",
        }
    }

    /// A value without its unit.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond | Self::Bytes | Self::Number => format!("{value:.0}"),
            Self::GibPerSecond | Self::Seconds | Self::Ratio => format!("{value:.2}"),
            Self::SecondsPerGib => format!("{value:.3}"),
            Self::Micros => format!("{:.1}", value * 1e6),
            Self::Millis => format!("{:.1}", value * 1e3),
            Self::Percent => format!("{:.1}", value * 100.0),
            Self::Mebibytes => format!("{:.2}", value / MIB),
        }
    }
}
