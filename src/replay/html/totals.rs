//! Figures of all chosen events, in bounded memory however long the log is.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::eventlog::EventLine;
use crate::replay::line;
use crate::replay::stats::{Stats, add};

/// How many groups are counted one by one.
const GROUPS_MAX: usize = 100_000;
/// How many moments activity is counted by; more of them become fewer that are longer.
const MOMENTS_MAX: usize = 20_000;
/// How long a moment may be, in milliseconds: a minute, an hour, a day, a year.
const WIDTHS_MS: [u64; 4] = [60_000, 3_600_000, 86_400_000, 365 * 86_400_000];

/// The types of events that activity tells apart; all others share the last lane.
const LANES: [&str; 6] = ["message", "group_message", "login", "login_failed", "user_blocked", ""];

/// Figures.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) stats: Stats,
    pub(super) by_group: BTreeMap<String, u64>,
    pub(super) by_other_groups: u64,
    /// Which of the widths activity is counted by.
    width: usize,
    activity: BTreeMap<u64, [u64; LANES.len()]>,
}

impl Totals {
    pub(super) fn count(&mut self, event: &EventLine<'_>) {
        self.stats.count(event);
        if let Some(group) = line::name(event.bytes, line::GROUP) {
            if self.by_group.len() < GROUPS_MAX || self.by_group.contains_key(group) {
                add(&mut self.by_group, group);
            } else {
                self.by_other_groups += 1;
            }
        }
        let kind = line::kind(event.bytes).unwrap_or_default();
        let lane = LANES.iter().position(|lane| *lane == kind).unwrap_or(LANES.len() - 1);
        if let Some(at) = line::time(event.bytes).and_then(Timestamp::from_log_form) {
            self.activity.entry(at.as_ms() / self.width_ms()).or_default()[lane] += 1;
            self.widen();
        }
    }

    /// How long a moment is, in milliseconds.
    pub(super) fn width_ms(&self) -> u64 {
        WIDTHS_MS[self.width]
    }

    /// Each moment that had events, in units of that, and how many of each lane.
    pub(super) fn activity(&self) -> impl Iterator<Item = (u64, &[u64])> {
        self.activity.iter().map(|(moment, lanes)| (*moment, &lanes[..]))
    }

    fn widen(&mut self) {
        while self.activity.len() > MOMENTS_MAX && self.width + 1 < WIDTHS_MS.len() {
            let narrow_ms = self.width_ms();
            self.width += 1;
            for (moment, counts) in std::mem::take(&mut self.activity) {
                let wide = self.activity.entry(moment * narrow_ms / self.width_ms()).or_default();
                wide.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_moments_there_are_few_are_kept_and_none_is_lost() {
        let mut totals = Totals::default();
        let events = 3 * MOMENTS_MAX as u64;
        for seq in 1..=events {
            let ts = Timestamp::from_ms(seq * 60_000);
            let line = format!(r#"{{"seq":{seq},"ts":"{ts}","type":"login","user":"han","session":1,"ip":"::1"}}"#);
            totals.count(&EventLine::of(line.as_bytes()).unwrap());
        }
        assert_eq!(totals.width_ms(), 3_600_000);
        assert!(totals.activity.len() <= usize::try_from(events).unwrap() / 60 + 1);
        assert_eq!(totals.activity().map(|(_, lanes)| lanes[2]).sum::<u64>(), events);
    }
}
