//! Rates of regions' work, from reports at any distance.

use std::time::Duration;

use quorate_placement::core::load::{Load, Loads, MEMORY};
use quorate_placement::core::tree::RegionTree;
use quorate_proto::{RegionId, StoreId};

use crate::support::{led, region, report, seconds};

/// A report of region 7 by a store, with what it counted since its last one.
fn counted(loads: &mut Loads, store: u64, at: u64, written: u64, read: u64) {
    let mut info = led(&region(7, "a", "b", 1), store, 6);
    info.stats.written_keys = written;
    info.stats.written_bytes = written * 100;
    info.stats.read_keys = read;
    loads.report(&report(store, false, vec![info]), seconds(at));
}

fn load(loads: &Loads, at: u64) -> Load {
    loads.of(RegionId(7), seconds(at))
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= b.abs() * 0.01
}

#[test]
fn steady_work_is_found_at_its_rate_however_often_it_is_told() {
    for every in [1, 7, 30] {
        let mut loads = Loads::default();
        for report in 0..=(600 / every) {
            counted(&mut loads, 1, report * every, 50 * every, 300 * every);
        }
        let at = 600 / every * every;
        let load = load(&loads, at);
        assert!(near(load.written_keys, 50.0), "{load:?}");
        assert!(near(load.written_bytes, 5_000.0));
        assert!(near(load.read_keys, 300.0));
        assert!(near(load.writes(), 50.0 + 5_000.0 / 1_024.0));
    }
}

#[test]
fn the_first_report_gives_no_rate_and_a_burst_a_small_one() {
    let mut loads = Loads::default();
    counted(&mut loads, 1, 0, 1_000_000, 0);
    assert_eq!(load(&loads, 0), Load::default(), "nobody knows since when");
    counted(&mut loads, 1, 6, 6_000, 0);
    let burst = load(&loads, 6).written_keys;
    assert!((90.0..100.0).contains(&burst), "a tenth of 1000 a second: {burst}");
}

#[test]
fn silence_lets_it_fade() {
    let mut loads = Loads::default();
    for at in 0..=600 {
        counted(&mut loads, 1, at, 100, 0);
    }
    let later = 600 + MEMORY.as_secs();
    assert!(near(load(&loads, later).written_keys, 100.0 / std::f64::consts::E));
    // A region that is reported rarely, with what it did in all that time, comes back.
    counted(&mut loads, 1, later, 100 * MEMORY.as_secs(), 0);
    assert!(near(load(&loads, later).written_keys, 100.0));
}

#[test]
fn a_new_leader_keeps_the_rate() {
    let mut loads = Loads::default();
    for at in 0..=600 {
        counted(&mut loads, 1, at, 100, 0);
    }
    // It counts from when it began to lead.
    counted(&mut loads, 2, 603, 0, 0);
    assert!(near(load(&loads, 603).written_keys, 100.0));
    counted(&mut loads, 2, 604, 100, 0);
    assert!(near(load(&loads, 604).written_keys, 100.0));
}

#[test]
fn a_process_keeps_cores_busy_and_starts_anew() {
    let mut loads = Loads::default();
    let mut told = |at: u64, incarnation: u64, cpu_us: u64| {
        let mut report = report(1, false, Vec::new());
        report.incarnation = incarnation;
        report.stats.cpu_us = cpu_us;
        loads.report(&report, seconds(at));
        loads.cores(StoreId(1))
    };
    assert_eq!(told(0, 1, 5_000_000), 0.0);
    let mut cores = 0.0;
    for second in 1..=600 {
        cores = told(second, 1, 5_000_000 + second * 1_500_000);
    }
    assert!(near(cores, 1.5), "{cores}");
    assert_eq!(told(601, 2, 10), 0.0, "another process");
}

#[test]
fn regions_that_are_gone_are_forgotten() {
    let mut loads = Loads::default();
    for at in 0..=60 {
        counted(&mut loads, 1, at, 100, 0);
    }
    let mut tree = RegionTree::default();
    tree.offer(led(&region(7, "a", "b", 1), 1, 6)).unwrap();
    loads.prune(&tree);
    assert_eq!(loads.iter(seconds(60) + Duration::ZERO).count(), 1);
    loads.prune(&RegionTree::default());
    assert_eq!(loads.iter(seconds(60)).count(), 0);
}
