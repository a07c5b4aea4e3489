//! The settings that there are, with their defaults, bounds and what they are for.

use super::{CLUSTER_VERSION_NAME, Kind, Known, LEVELS, ON, PAUSED, REPLICAS, RULES};

const fn known(name: &'static str, default: &'static str, kind: Kind, help: &'static str) -> Known {
    Known { name, default, kind, help }
}

/// A day, in milliseconds.
const DAY: u64 = 86_400_000;
const PERCENT: Kind = Kind::Number(0, 100);
const MILLIS: Kind = Kind::Number(1, DAY);

/// All settings, in the order people see them.
pub const KNOWN: &[Known] = &[
    known(REPLICAS, "3", Kind::Odd, "voters of each region: 1, 3, 5 or 7"),
    known(
        CLUSTER_VERSION_NAME,
        "5",
        Kind::Number(1, 5),
        "form of what the cluster replicates; raise it once every member of placement and every \
         store runs the newer program",
    ),
    known(
        "lifecycle.join_ms",
        "30000",
        MILLIS,
        "milliseconds for a new replica to be seen in the applied configuration",
    ),
    known(
        "lifecycle.pairing_ms",
        "120000",
        MILLIS,
        "milliseconds that a ready learner waits for a partner before it stands by",
    ),
    known(
        "lifecycle.promotion_ms",
        "300000",
        MILLIS,
        "milliseconds that a learner may be ready without being promoted before it stands by",
    ),
    known(
        "lifecycle.stall_ms",
        "60000",
        MILLIS,
        "milliseconds without progress after which a learner that is behind is stale",
    ),
    known(
        "lifecycle.zombie_ms",
        "600000",
        MILLIS,
        "milliseconds without contact after which a learner is removed",
    ),
    known(
        "lifecycle.catch_up_ms",
        "600",
        MILLIS,
        "a ready learner catches up within so many milliseconds at its measured rate",
    ),
    known(
        "lifecycle.max_lag",
        "1024",
        Kind::Number(0, 10_000_000),
        "log entries that a ready learner may lack, or have and not have applied; more count as 1024, beyond which stores promote none",
    ),
    known(
        "lifecycle.contact_ms",
        "5000",
        MILLIS,
        "a ready learner was heard of within so many milliseconds",
    ),
    known(
        "lifecycle.stable_ms",
        "2000",
        Kind::Number(0, DAY),
        "milliseconds for which all that must hold before a learner counts as ready",
    ),
    known(
        "store.suspect_ms",
        "20000",
        MILLIS,
        "milliseconds of silence after which a store is suspected",
    ),
    known(
        "store.down_ms",
        "1800000",
        MILLIS,
        "milliseconds of silence after which a store is given up and its replicas are replaced",
    ),
    known(
        RULES,
        "",
        Kind::Text(16 * 1024),
        "placement rules, as `1 learner where tier=analytics; 3 voters from \"a\" to \"b\"`",
    ),
    known(
        LEVELS,
        "zone,rack,host",
        Kind::Text(256),
        "labels that tell failure domains, from the widest to the narrowest",
    ),
    known(
        "balance.leaders_percent",
        "4",
        PERCENT,
        "percent of the mean by which stores may differ in leaders",
    ),
    known(
        "balance.replicas_percent",
        "4",
        PERCENT,
        "percent of the mean by which stores may differ in replicas",
    ),
    known(
        "balance.bytes_percent",
        "10",
        PERCENT,
        "percent of the mean by which stores may differ in bytes",
    ),
    known(
        "hot.share_percent",
        "10",
        PERCENT,
        "percent of a store's mean load from which on a region is hot",
    ),
    known(
        "store_limit.additions",
        "15",
        Kind::Number(0, 100_000),
        "full regions a minute that may be added to a store",
    ),
    known(
        "store_limit.removals",
        "15",
        Kind::Number(0, 100_000),
        "full regions a minute that may be removed from a store",
    ),
    known(
        "store_limit.snapshots",
        "8",
        Kind::Number(1, 10_000),
        "snapshots on their way to a store, from which on it gets no more replicas",
    ),
    known(
        "store_limit.arriving",
        "16",
        Kind::Number(1, 10_000),
        "replicas on their way to a store, from which on no more are begun",
    ),
    known(
        "store_limit.free_percent",
        "5",
        PERCENT,
        "percent of a store's disk that stay free: beyond, it gets no more replicas",
    ),
    known(
        "merge.enabled",
        ON,
        Kind::Switch,
        "on: small neighbouring regions are merged; off: only on request",
    ),
    known(
        "merge.max_bytes",
        "20971520",
        Kind::Number(0, 1 << 40),
        "bytes that a region may hold to be taken in; three times that is what both may hold, \
         which must stay well below the stores' split.region_bytes",
    ),
    known(
        "merge.max_keys",
        "200000",
        Kind::Number(0, 1 << 40),
        "keys that a region may hold to be taken in; three times that is what both may hold, \
         which must stay well below the stores' split.region_keys",
    ),
    known(
        "merge.min_age_ms",
        "3600000",
        Kind::Number(0, DAY),
        "milliseconds for which two regions were seen with the same range and leader before they \
         are merged",
    ),
    known(
        "merge.at_once",
        "8",
        Kind::Number(0, 64),
        "merges under way, from which on no more are begun",
    ),
    known(
        PAUSED,
        "",
        Kind::Text(256),
        "schedulers and checkers that are paused, by name, with commas between",
    ),
];
