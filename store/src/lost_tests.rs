//! Who is asked for, and who is removed.

use quorate_proto::{Epoch, PeerId, Region};

use super::*;
use crate::config::LimitsConfig;
use crate::core::peers::is_removed;
use crate::testing::{LEFT, RIGHT, TestStore};

fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1_000)
}

#[tokio::test]
async fn a_replica_is_asked_for_after_a_long_silence_and_not_all_the_time() {
    let store = TestStore::new(LimitsConfig::default());
    let mut asked = BTreeMap::new();
    let left = store.directory.get(LEFT).unwrap();
    assert!(due(&store.directory, &mut asked, at(100)).is_empty(), "nobody is silent");
    left.view().set_silent_since(Some(at(50)));
    assert!(due(&store.directory, &mut asked, at(59)).is_empty(), "not for long");
    let ids = |locals: Vec<Arc<LocalRegion>>| locals.iter().map(|l| l.id()).collect::<Vec<_>>();
    assert_eq!(ids(due(&store.directory, &mut asked, at(60))), [LEFT]);
    assert!(due(&store.directory, &mut asked, at(69)).is_empty(), "asked lately");
    store.directory.get(RIGHT).unwrap().view().set_silent_since(Some(at(50)));
    assert_eq!(ids(due(&store.directory, &mut asked, at(69))), [RIGHT]);
    left.view().set_silent_since(None);
    assert!(due(&store.directory, &mut asked, at(75)).is_empty(), "the leader is back");
}

#[tokio::test]
async fn only_a_newer_configuration_without_a_replica_removes_it() {
    let store = TestStore::new(LimitsConfig::default());
    let local = store.directory.get(LEFT).unwrap();
    let known = local.region().unwrap();
    let other = |conf_ver, here: bool| {
        let mut region = Region::clone(&known);
        region.epoch = Epoch { conf_ver, ..region.epoch };
        if !here {
            region.peers.retain(|peer| peer.id != PeerId(11));
        }
        region
    };
    assert!(is_removed(&local, &other(2, false)));
    assert!(!is_removed(&local, &other(2, true)), "it is still a member");
    assert!(!is_removed(&local, &other(1, false)), "no newer than what it knows");
    assert!(!is_removed(&local, &other(0, false)), "placement is behind");
}
