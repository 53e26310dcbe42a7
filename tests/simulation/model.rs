//! The log against a list: whatever happens to it, it holds what a `Vec` would hold.

use std::path::Path;

use ottla::env::sim::Simulation;
use ottla::log::{Log, LogConfig, OpenOptions};
use ottla::types::{Offset, TimestampMs};
use proptest::prelude::*;

use crate::support::{EPOCH, batch, options, read_all, read_from};

#[derive(Clone, Debug)]
enum Step {
    Append { count: usize, size: usize },
    Sync,
    Roll,
    Truncate(u8),
    TruncateUncleanly(u8),
    Commit(u8),
    DeleteBefore(u8),
    RetainBytes(u16),
    Close,
    Kill,
    PowerCut,
    Read(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (1..6_usize, 0..300_usize).prop_map(|(count, size)| Step::Append { count, size }),
        3 => Just(Step::Sync),
        1 => Just(Step::Roll),
        2 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::TruncateUncleanly),
        3 => any::<u8>().prop_map(Step::Commit),
        1 => any::<u8>().prop_map(Step::DeleteBefore),
        1 => (0..4000_u16).prop_map(Step::RetainBytes),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerCut),
        3 => any::<u8>().prop_map(Step::Read),
    ]
}

struct Pair {
    simulation: Simulation,
    log: Option<Log>,
    /// The offset of the first value of `values`.
    start: i64,
    values: Vec<(i64, String)>,
    end: i64,
    synced: i64,
    written: u64,
}

const PATH: &str = "data/orders-0";

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 2000,
        index_interval_bytes: 200,
        segment_ms: 1000,
        retention_ms: -1,
        file_delete_delay_ms: 10,
        ..LogConfig::default()
    }
}

impl Pair {
    fn new(seed: u64) -> Self {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let log = Log::create(&env, Path::new(PATH), options(config())).unwrap();
        log.sync().unwrap();
        Self {
            simulation,
            log: Some(log),
            start: 0,
            values: Vec::new(),
            end: 0,
            synced: 0,
            written: 0,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn open(&mut self, clean: bool) {
        let opening = OpenOptions {
            recovery_point: Offset(self.synced),
            log_start_offset: Offset(self.start),
            clean_shutdown: clean,
            ..options(config())
        };
        let opened = Log::open(&self.simulation.env(), Path::new(PATH), opening);
        self.log = Some(opened.unwrap().0);
    }

    fn apply(&mut self, step: &Step) {
        let now = TimestampMs(1_000 + self.end);
        match step {
            Step::Append { count, size } => {
                let values: Vec<String> = (0..*count)
                    .map(|index| format!("{}-{index}-{}", self.written, "x".repeat(*size)))
                    .collect();
                self.written += 1;
                let texts: Vec<&str> = values.iter().map(String::as_str).collect();
                let info = self.log().append_as_leader(&batch(now.0, &texts), EPOCH, now).unwrap();
                assert_eq!(info.base_offset.0, self.end);
                for value in values {
                    self.values.push((self.end, value));
                    self.end += 1;
                }
            }
            Step::Sync => self.synced = self.log().sync().unwrap().0,
            Step::Roll => {
                self.simulation.clock.advance(2000);
                let later = TimestampMs(self.simulation.env().clock.now().0);
                self.log().maybe_roll(later).unwrap();
            }
            Step::Truncate(at) => self.truncate(*at),
            Step::TruncateUncleanly(at) => self.truncate_uncleanly(*at),
            Step::Commit(at) => self.commit(*at),
            Step::DeleteBefore(at) => {
                let target = self.place(*at);
                let end = Offset(self.end);
                let start = self.log().delete_records_before(Offset(target), end).unwrap().0;
                self.forget(start);
            }
            Step::RetainBytes(bytes) => {
                let retention_bytes = i64::from(*bytes);
                let end = Offset(self.end);
                self.log().update_config(LogConfig { retention_bytes, ..config() });
                self.log().apply_retention(now, end).unwrap();
                self.log().update_config(config());
                let start = self.log().log_start_offset().0;
                self.forget(start);
            }
            Step::Close => {
                let closed = self.log.take().unwrap().close().unwrap();
                assert_eq!(closed.0, self.end);
                self.synced = self.end;
                self.open(true);
            }
            Step::Kill => {
                self.log = None;
                self.simulation.disk.kill();
                self.open(false);
            }
            Step::PowerCut => self.power_cut(),
            Step::Read(at) => {
                let from = self.place(*at);
                let expected: Vec<_> =
                    self.values.iter().filter(|(offset, _)| *offset >= from).cloned().collect();
                assert_eq!(read_from(&self.log().reader(), from).unwrap(), expected);
            }
        }
        assert_eq!(self.log().log_end_offset().0, self.end);
        assert_eq!(self.log().log_start_offset().0, self.start);
    }

    fn truncate(&mut self, at: u8) {
        let target = Offset(self.place(at));
        let committed = self.log().high_watermark().get();
        let cut = self.log().truncate_to(target);
        assert_eq!(cut.is_ok(), target >= committed, "{target:?}, {committed:?}");
        if let Ok(end) = cut {
            self.cut(end.0, target.0);
        }
    }

    fn truncate_uncleanly(&mut self, at: u8) {
        let target = self.place(at);
        let end = self.log().truncate_uncleanly(Offset(target)).unwrap();
        assert!(self.log().high_watermark().get() <= end);
        self.cut(end.0, target);
    }

    fn commit(&mut self, at: u8) {
        let target = Offset(self.place(at));
        let high_watermark = self.log().high_watermark();
        let before = high_watermark.get();
        high_watermark.raise(target);
        assert_eq!(high_watermark.get(), before.max(target));
    }

    fn cut(&mut self, end: i64, target: i64) {
        assert!(end <= target);
        self.synced = self.synced.min(end);
        self.end = end;
        self.start = self.log().log_start_offset().0;
        let start = self.start;
        self.values.retain(|(offset, _)| *offset >= start && *offset < end);
    }

    fn place(&self, at: u8) -> i64 {
        self.start + (self.end - self.start) * i64::from(at) / 255
    }

    fn forget(&mut self, start: i64) {
        assert!(start >= self.start && start <= self.end);
        self.start = start;
        self.values.retain(|(offset, _)| *offset >= start);
    }

    /// Everything synced is there, and the rest is a prefix of what was written.
    fn power_cut(&mut self) {
        self.log = None;
        self.simulation.disk.power_cut();
        self.open(false);
        let end = self.log().log_end_offset().0;
        assert!(end >= self.synced && end <= self.end, "{} <= {end} <= {}", self.synced, self.end);
        self.values.retain(|(offset, _)| *offset < end);
        self.end = end;
        let start = self.log().log_start_offset().0;
        self.forget(start);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_log_holds_what_a_list_would_hold(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut pair = Pair::new(seed);
        for step in &steps {
            pair.apply(step);
        }
        let reader = pair.log().reader();
        prop_assert_eq!(read_all(&reader).unwrap(), pair.values);
    }
}
