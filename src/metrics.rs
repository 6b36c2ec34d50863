//! What is measured, and how it is said: counts of how long things took, and Prometheus' text format.
//!
//! Whoever does the work owns its [`Histogram`] and notes into it; `rpc` reads all of them when it is asked. A note is three
//! relaxed additions without a lock, and its memory is fixed. The counts of one histogram are read one after the other, so
//! that a look at a busy node may miss by the calls of that moment, never by more.

use std::{
    fmt::{Display, Write as _},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The upper bounds of the buckets of all histograms, in microseconds: from a sync of a fast disk to a call that a client
/// has long given up.
const BOUNDS_US: [u64; 17] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last is for what is above all bounds.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    /// Notes that it took so long.
    pub fn note(&self, took: Duration) {
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(counter) = self.buckets.get(BOUNDS_US.partition_point(|bound| *bound < microseconds)) {
            counter.fetch_add(1, Relaxed);
        }
        self.microseconds.fetch_add(microseconds, Relaxed);
    }

    /// How often it was noted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }
}

/// Since when something is under way that is done by one at a time. For work that may hang: who is stuck in it cannot say
/// so.
#[derive(Debug, Default)]
pub struct UnderWay(AtomicU64);

impl UnderWay {
    /// It begins at this moment of the monotonic clock.
    pub fn begin(&self, now: Duration) {
        // Zero is for nothing.
        self.0.store(u64::try_from(now.as_micros()).unwrap_or(u64::MAX).saturating_add(1), Relaxed);
    }

    /// It is done.
    pub fn end(&self) {
        self.0.store(0, Relaxed);
    }

    /// When it began, on the monotonic clock; `None` if nothing is under way.
    pub fn since(&self) -> Option<Duration> {
        self.0.load(Relaxed).checked_sub(1).map(Duration::from_micros)
    }
}

/// Prometheus' text format, in the making. Names stand without `meshstore_`, which is put in front of all of them.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// What stands in front of the values of a metric. `kind`: gauge, counter, histogram.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "# HELP meshstore_{name} {help}\n# TYPE meshstore_{name} {kind}");
    }

    /// A value of a metric whose head was written. `labels`: as in `member="2"`, or nothing.
    pub fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "meshstore_{name} {value}"),
            labels => writeln!(self.0, "meshstore_{name}{{{labels}}} {value}"),
        };
    }

    /// A metric with one value.
    pub fn metric(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        self.value(name, "", value);
    }

    /// A gauge of a time; `u64::MAX` milliseconds are for ever.
    pub fn seconds(&mut self, name: &str, help: &str, milliseconds: u64) {
        self.head(name, "gauge", help);
        match milliseconds {
            u64::MAX => self.value(name, "", "+Inf"),
            _ => self.value(name, "", Duration::from_millis(milliseconds).as_secs_f64()),
        }
    }

    /// The values of a histogram whose head was written.
    pub fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let counts = histogram.buckets.iter().map(|bucket| bucket.load(Relaxed));
        let comma = if labels.is_empty() { "" } else { "," };
        let mut up_to = 0;
        let bounds = BOUNDS_US.map(|bound| Duration::from_micros(bound).as_secs_f64().to_string());
        for (count, bound) in counts.zip(bounds.iter().map(String::as_str).chain(["+Inf"])) {
            up_to += count;
            self.value(&format!("{name}_bucket"), &format!("{labels}{comma}le=\"{bound}\""), up_to);
        }
        let sum = Duration::from_micros(histogram.microseconds.load(Relaxed)).as_secs_f64();
        self.value(&format!("{name}_sum"), labels, sum);
        self.value(&format!("{name}_count"), labels, up_to);
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_seconds() {
        let mut text = Text::default();
        text.seconds("age_seconds", "Age.", 1_500);
        text.seconds("age_seconds", "Age.", u64::MAX);
        let lines: Vec<String> = text.into_text().lines().skip(1).map(str::to_owned).collect();
        let head = "# HELP meshstore_age_seconds Age.";
        assert_eq!(
            lines,
            [
                "# TYPE meshstore_age_seconds gauge",
                "meshstore_age_seconds 1.5",
                head,
                "# TYPE meshstore_age_seconds gauge",
                "meshstore_age_seconds +Inf"
            ]
        );
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let histogram = Histogram::default();
        for us in [0, 50, 51, 1_500, 20_000_000] {
            histogram.note(Duration::from_micros(us));
        }
        assert_eq!(histogram.count(), 5);
        let mut text = Text::default();
        text.head("sync_seconds", "histogram", "Syncs.");
        text.histogram("sync_seconds", "", &histogram);
        text.histogram("sync_seconds", "disk=\"a\"", &histogram);
        let text = text.into_text();
        for line in [
            "# HELP meshstore_sync_seconds Syncs.",
            "# TYPE meshstore_sync_seconds histogram",
            "meshstore_sync_seconds_bucket{le=\"0.00005\"} 2",
            "meshstore_sync_seconds_bucket{le=\"0.0001\"} 3",
            "meshstore_sync_seconds_bucket{le=\"0.002\"} 4",
            "meshstore_sync_seconds_bucket{le=\"10\"} 4",
            "meshstore_sync_seconds_bucket{le=\"+Inf\"} 5",
            "meshstore_sync_seconds_sum 20.001601",
            "meshstore_sync_seconds_count 5",
            "meshstore_sync_seconds_bucket{disk=\"a\",le=\"10\"} 4",
            "meshstore_sync_seconds_sum{disk=\"a\"} 20.001601",
            "meshstore_sync_seconds_count{disk=\"a\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn what_is_under_way_says_since_when() {
        let work = UnderWay::default();
        assert_eq!(work.since(), None);
        work.begin(Duration::ZERO);
        assert_eq!(work.since(), Some(Duration::ZERO));
        work.begin(Duration::from_millis(7));
        assert_eq!(work.since(), Some(Duration::from_millis(7)));
        work.end();
        assert_eq!(work.since(), None);
    }
}
