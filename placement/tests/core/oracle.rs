//! Timestamps: strictly increasing through clock jumps, floods and failovers.

use proptest::prelude::*;
use quorate_placement::core::command::{Answer, Command};
use quorate_placement::core::oracle::{
    CEILING_AHEAD_MS, LOGICAL_PER_MS, NoTimestamp, Oracle, Timestamp,
};

use crate::support::Machine;

const NOON: u64 = 1_700_000_000_000;

/// The first thing a leader does in its term.
fn take_over(machine: &mut Machine, wall_ms: u64) -> Oracle {
    let known = machine.state.counters().time_ceiling_ms;
    let ceiling_ms = Oracle::first_ceiling(known, wall_ms);
    let Answer::Time { previous_ms, ceiling_ms } =
        machine.apply(Command::ExtendTime { ceiling_ms })
    else {
        panic!("no ceiling")
    };
    Oracle::new(previous_ms, ceiling_ms, wall_ms)
}

fn raise(machine: &mut Machine, oracle: &mut Oracle, wall_ms: u64) {
    let Some(ceiling_ms) = oracle.wants(wall_ms) else { return };
    match machine.apply(Command::ExtendTime { ceiling_ms }) {
        Answer::Time { ceiling_ms, .. } => oracle.raised(ceiling_ms),
        other => panic!("{other:?}"),
    }
}

#[test]
fn follows_the_clock_and_counts_within_a_millisecond() {
    let mut oracle = take_over(&mut Machine::default(), NOON);
    let at = |physical_ms, logical| Ok(Timestamp { physical_ms, logical });
    assert_eq!(oracle.allocate(1, NOON), at(NOON, 0));
    assert_eq!(oracle.allocate(10, NOON), at(NOON, 10));
    assert_eq!(oracle.allocate(1, NOON + 5), at(NOON + 5, 0));
    let composed = oracle.allocate(1, NOON + 5).unwrap().composed();
    assert_eq!(composed, ((NOON + 5) << 18) | 1);
}

#[test]
fn a_clock_that_jumps_back_does_not_take_time_along() {
    let mut oracle = take_over(&mut Machine::default(), NOON);
    let before = oracle.allocate(1, NOON + 100).unwrap();
    let after = oracle.allocate(1, NOON - 3_600_000).unwrap();
    assert!(after > before);
    assert_eq!(oracle.clock_ms(NOON - 3_600_000), NOON + 100);
}

#[test]
fn a_full_millisecond_moves_on_to_the_next() {
    let mut oracle = take_over(&mut Machine::default(), NOON);
    let most = LOGICAL_PER_MS - 1;
    assert_eq!(oracle.allocate(most, NOON).unwrap().physical_ms, NOON);
    let next = oracle.allocate(2, NOON).unwrap();
    assert_eq!((next.physical_ms, next.logical), (NOON + 1, 1));
}

#[test]
fn nothing_at_or_above_the_ceiling_is_given() {
    let mut machine = Machine::default();
    let mut oracle = take_over(&mut machine, NOON);
    let ceiling = machine.state.counters().time_ceiling_ms;
    assert_eq!(ceiling, NOON + CEILING_AHEAD_MS);
    let most = LOGICAL_PER_MS - 1;
    let mut last = 0;
    let refused = loop {
        match oracle.allocate(most, NOON) {
            Ok(timestamp) => last = timestamp.physical_ms,
            Err(why) => break why,
        }
    };
    assert_eq!((refused, last), (NoTimestamp::Ceiling, ceiling - 1));
    raise(&mut machine, &mut oracle, NOON);
    assert_eq!(oracle.allocate(1, NOON).unwrap().physical_ms, ceiling);
}

#[test]
fn the_ceiling_is_raised_when_half_of_it_is_used() {
    let oracle = take_over(&mut Machine::default(), NOON);
    assert_eq!(oracle.wants(NOON), None);
    assert_eq!(oracle.wants(NOON + CEILING_AHEAD_MS / 2 - 1), None);
    let half = NOON + CEILING_AHEAD_MS / 2;
    assert_eq!(oracle.wants(half), Some(half + CEILING_AHEAD_MS));
}

#[test]
fn requests_are_bounded() {
    let mut oracle = take_over(&mut Machine::default(), NOON);
    for count in [0, LOGICAL_PER_MS, u64::from(u32::MAX)] {
        assert_eq!(oracle.allocate(count, NOON), Err(NoTimestamp::Count(count)));
    }
}

#[derive(Debug, Clone)]
enum Move {
    Ask {
        count: u64,
    },
    Raise,
    Clock {
        millis: i64,
    },
    Failover {
        skew: i64,
    },
    /// The old leader answers some more requests before it knows.
    Deposed {
        count: u64,
    },
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        6 => (1u64..LOGICAL_PER_MS).prop_map(|count| Move::Ask { count }),
        3 => Just(Move::Raise),
        3 => (-2_000_000i64..2_000_000).prop_map(|millis| Move::Clock { millis }),
        3 => (-20i64..50).prop_map(|millis| Move::Clock { millis }),
        1 => (-600_000i64..600_000).prop_map(|skew| Move::Failover { skew }),
        1 => (1u64..100).prop_map(|count| Move::Deposed { count }),
    ]
}

proptest! {
    #[test]
    fn strictly_increasing_whatever_happens(
        moves in proptest::collection::vec(moves(), 1..200)
    ) {
        let mut machine = Machine::default();
        let mut wall = NOON;
        let mut oracle = take_over(&mut machine, wall);
        let mut deposed: Option<Oracle> = None;
        let (mut last, mut last_clock) = (0u64, 0u64);
        for step in moves {
            match step {
                Move::Ask { count } => {
                    if let Ok(timestamp) = oracle.allocate(count, wall) {
                        let first = timestamp.composed() - (count - 1);
                        prop_assert!(timestamp.logical + 1 >= count);
                        prop_assert!(first > last, "{first} after {last}");
                        last = timestamp.composed();
                    }
                    let clock = oracle.clock_ms(wall);
                    prop_assert!(clock >= last_clock);
                    last_clock = clock;
                }
                Move::Raise => raise(&mut machine, &mut oracle, wall),
                Move::Clock { millis } => wall = wall.saturating_add_signed(millis),
                Move::Failover { skew } => {
                    wall = wall.saturating_add_signed(skew);
                    machine.state = machine.reloaded();
                    let next = take_over(&mut machine, wall);
                    deposed = Some(std::mem::replace(&mut oracle, next));
                }
                Move::Deposed { count } => {
                    if let Some(Ok(late)) = deposed.as_mut().map(|old| old.allocate(count, wall)) {
                        let mut probe = oracle.clone();
                        if let Ok(new) = probe.allocate(1, wall) {
                            prop_assert!(late < new, "two leaders gave overlapping timestamps");
                        }
                    }
                }
            }
        }
        // Right after a raise there is always something to give.
        raise(&mut machine, &mut oracle, wall);
        prop_assert!(oracle.allocate(1, wall).is_ok());
    }
}
