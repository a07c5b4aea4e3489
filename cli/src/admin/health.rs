//! One line of health, and what it means for the exit code.

use std::fmt;

use quorate_proto::wire::placement::{StatusResponse, StoreStatus};

use crate::exit::Code;
use crate::output;

/// How well the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Everything is where it should be.
    Healthy,
    /// All keys are served, with less safety than there should be.
    Degraded,
    /// Placement has a new leader, which not all stores have reported to yet. Nothing is known to be
    /// wrong with any key, nor that all is well: ask again in a second.
    Unknown,
    /// Some keys are not served.
    Unavailable,
}

impl Level {
    /// The exit code that says so.
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Healthy => Code::Done,
            Self::Degraded | Self::Unknown => Code::Degraded,
            Self::Unavailable => Code::Unavailable,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Unknown => "UNKNOWN",
            Self::Unavailable => "UNAVAILABLE",
        })
    }
}

/// The level and the figures behind it; shown as one line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Health {
    /// How well it is.
    pub(crate) level: Level,
    /// What is wrong, gravest first.
    pub(crate) troubles: Vec<String>,
    /// Stores that may fail now without any key becoming unavailable, as far as is known.
    pub(crate) survives: u64,
    /// Regions, with the sentinel.
    pub(crate) regions: u64,
    /// Regions with fewer live replicas than wanted.
    pub(crate) under_replicated: u64,
    /// Operators in flight.
    pub(crate) moving: u32,
    /// Share of the fullest store's disk that is used, in percent.
    pub(crate) fullest_percent: Option<u64>,
    /// Operations a second of all stores.
    pub(crate) operations_per_second: u64,
}

impl Health {
    /// True where nothing is wrong.
    pub(crate) fn is_healthy(&self) -> bool {
        self.level == Level::Healthy
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.level)?;
        for trouble in &self.troubles {
            write!(f, " · {trouble}")?;
        }
        match self.survives {
            0 => f.write_str(" · survives no store failure")?,
            1 => f.write_str(" · survives 1 store failure")?,
            n => write!(f, " · survives {n} store failures")?,
        }
        write!(
            f,
            " · {} regions · {} under-replicated · {} moving",
            self.regions, self.under_replicated, self.moving
        )?;
        if let Some(percent) = self.fullest_percent {
            write!(f, " · fullest store {percent} %")?;
        }
        write!(f, " · {} op/s", output::count(self.operations_per_second as f64))
    }
}

/// Judges what placement says.
pub(crate) fn judge(status: &StatusResponse) -> Health {
    let mut grave = Vec::new();
    let mut unknown = Vec::new();
    let mut mild = Vec::new();
    if !status.bootstrapped {
        grave.push(match status.missing_stores {
            0 => "not bootstrapped yet".to_owned(),
            1 => "waits for 1 more store".to_owned(),
            n => format!("waits for {n} more stores"),
        });
    }
    if status.leaderless > 0 {
        grave.push(format!("{} regions without a leader", status.leaderless));
    }
    if status.stopped > 0 {
        grave.push(format!("{} regions stopped by a merge for long", status.stopped));
    }
    // Placement of an older form tells neither number: then they are equal.
    if status.reported_stores < status.reporting_stores {
        let (told, of) = (status.reported_stores, status.reporting_stores);
        unknown.push(format!("recent: {told} of {of} stores have reported to the new leader"));
    }
    let counted = status.stores.iter().filter(|store| store.state != "Left");
    let away: Vec<&StoreStatus> = counted.filter(|store| !is_serving(store)).collect();
    for store in &away {
        let id = store.store.as_ref().map_or(0, |store| store.id);
        let silent = store.silent_ms / 1000;
        mild.push(format!("s{id} {} (silent {silent} s)", store.state.to_lowercase()));
    }
    for member in status.members.iter().filter(|member| !member.healthy) {
        mild.push(format!("{} is away", member.name));
    }
    if status.under_replicated > 0 && away.is_empty() {
        mild.push("replicas are missing".to_owned());
    }
    let level = match (grave.is_empty(), unknown.is_empty(), mild.is_empty()) {
        (false, _, _) => Level::Unavailable,
        (true, false, _) => Level::Unknown,
        (true, true, false) => Level::Degraded,
        (true, true, true) => Level::Healthy,
    };
    grave.extend(unknown);
    grave.extend(mild);
    let tolerated = u64::from(status.replicas.saturating_sub(1) / 2);
    // One that has yet to report may be away.
    let unheard = status.reporting_stores.saturating_sub(status.reported_stores);
    let missing = away.len() as u64 + u64::from(unheard);
    Health {
        level,
        troubles: grave,
        survives: tolerated.saturating_sub(missing),
        regions: status.regions,
        under_replicated: status.under_replicated,
        moving: status.operators,
        fullest_percent: status.stores.iter().filter_map(used_percent).max(),
        operations_per_second: status.operations_per_second,
    }
}

/// True for a store that does its work.
fn is_serving(store: &StoreStatus) -> bool {
    matches!(store.state.as_str(), "Up" | "Leaving")
}

/// Share of its disk that is used, in percent.
pub(crate) fn used_percent(store: &StoreStatus) -> Option<u64> {
    let report = store.last.as_ref().filter(|report| report.capacity_bytes > 0)?;
    let used = report.capacity_bytes.saturating_sub(report.available_bytes);
    Some(used.saturating_mul(100) / report.capacity_bytes)
}

#[cfg(test)]
mod tests {
    use quorate_proto::wire::metapb::Store;
    use quorate_proto::wire::placement::{MemberStatus, StoreReport};

    use super::*;

    fn store(id: u64, state: &str) -> StoreStatus {
        StoreStatus {
            store: Some(Store { id, ..Store::default() }),
            state: state.to_owned(),
            last: Some(StoreReport {
                capacity_bytes: 100,
                available_bytes: 50 + id,
                ..StoreReport::default()
            }),
            silent_ms: 12_000,
            ..StoreStatus::default()
        }
    }

    fn status() -> StatusResponse {
        StatusResponse {
            bootstrapped: true,
            members: vec![MemberStatus {
                name: "placement-1".to_owned(),
                healthy: true,
                leader: true,
                ..MemberStatus::default()
            }],
            stores: vec![store(1, "Up"), store(2, "Up"), store(3, "Up")],
            regions: 24,
            replicas: 3,
            operations_per_second: 8_100,
            ..StatusResponse::default()
        }
    }

    #[test]
    fn all_is_well() {
        let health = judge(&status());
        assert_eq!(health.level, Level::Healthy);
        assert_eq!(
            health.to_string(),
            "HEALTHY · survives 1 store failure · 24 regions · 0 under-replicated · 0 moving · \
             fullest store 49 % · 8.1k op/s"
        );
    }

    #[test]
    fn a_store_that_is_down_degrades_and_costs_the_reserve() {
        let mut status = status();
        status.stores[1] = store(2, "Down");
        status.under_replicated = 24;
        let health = judge(&status);
        assert_eq!(health.level, Level::Degraded);
        let line = health.to_string();
        assert!(line.starts_with("DEGRADED · s2 down (silent 12 s) · survives no store failure"));
        assert!(line.contains("24 under-replicated"), "{line}");
    }

    #[test]
    fn a_region_without_a_leader_is_unavailable() {
        let mut status = status();
        status.leaderless = 2;
        status.members[0].healthy = false;
        let health = judge(&status);
        assert_eq!(health.level.code(), Code::Unavailable);
        assert_eq!(health.troubles, ["2 regions without a leader", "placement-1 is away"]);
    }

    #[test]
    fn a_region_that_a_merge_has_stopped_for_long_is_unavailable() {
        let mut status = status();
        status.stopped = 1;
        let health = judge(&status);
        assert_eq!(health.level, Level::Unavailable);
        assert_eq!(health.troubles, ["1 regions stopped by a merge for long"]);
    }

    #[test]
    fn what_a_new_leader_of_placement_was_not_told_yet_is_not_known() {
        let mut status = status();
        (status.reported_stores, status.reporting_stores, status.unreported) = (1, 3, 20);
        let health = judge(&status);
        assert_eq!((health.level, health.level.code()), (Level::Unknown, Code::Degraded));
        let line = health.to_string();
        let told = "UNKNOWN · recent: 1 of 3 stores have reported to the new leader · survives no";
        assert!(line.starts_with(told), "{line}");
        // What is amiss for sure is said with it, and what is grave comes first.
        status.stores[1] = store(2, "Suspect");
        assert_eq!(judge(&status).level, Level::Unknown);
        assert_eq!(judge(&status).troubles.len(), 2);
        status.leaderless = 4;
        assert_eq!(judge(&status).level, Level::Unavailable);
        (status.reported_stores, status.leaderless, status.unreported) = (3, 0, 0);
        assert_eq!(judge(&status).level, Level::Degraded);
    }

    #[test]
    fn a_fresh_cluster_says_what_it_waits_for() {
        let status = StatusResponse { missing_stores: 2, ..StatusResponse::default() };
        let health = judge(&status);
        assert_eq!(health.level, Level::Unavailable);
        assert!(health.to_string().contains("waits for 2 more stores"));
    }
}
