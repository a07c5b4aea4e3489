//! Which worker a group belongs to, and what a full mailbox takes.

use bytes::Bytes;
use quorate_proto::wire::peer::Entry;

use super::*;

#[test]
fn groups_spread_over_workers_whatever_the_gaps_of_their_ids() {
    for (workers, gap) in [(1, 4), (2, 4), (3, 3), (4, 4), (8, 6)] {
        let mut groups = vec![0; workers];
        for number in 0..1_000 {
            groups[spread(RegionId(2 + number * gap), workers)] += 1;
        }
        let fair = 1_000 / workers;
        let uneven = groups.iter().any(|count| count * 10 < fair * 9 || count * 10 > fair * 11);
        assert!(!uneven, "{workers} workers, every {gap}th id: {groups:?}");
    }
}

const MOST: usize = 10_000;

fn command(bytes: usize) -> Mail<u64> {
    let command = Bytes::from(vec![0; bytes]);
    let group = RegionId(1);
    Mail::Event(Event::Propose { group, command, token: 0, suspends_lease: false })
}

fn read() -> Mail<u64> {
    Mail::Event(Event::Read { group: RegionId(1), token: 0 })
}

fn message(entry_bytes: &[usize]) -> Envelope {
    let entry = |bytes: &usize| Entry { data: vec![0; *bytes].into(), ..Entry::default() };
    Envelope { entries: entry_bytes.iter().map(entry).collect(), ..Envelope::default() }
}

/// Numbers of the entries of all messages that were taken, in order.
fn taken(mailbox: &Mailbox<u64>) -> Vec<usize> {
    let mut mails = Vec::new();
    mailbox.take(&mut mails, None);
    let envelopes = mails.into_iter().flat_map(|mail| match mail {
        Mail::Frame(_, envelopes) => envelopes,
        Mail::Event(_) | Mail::Snapshot(..) | Mail::Stop => Vec::new(),
    });
    envelopes.map(|envelope| envelope.entries.len()).collect()
}

#[test]
fn commands_are_refused_beyond_their_bytes_and_nothing_else_is() {
    let mailbox = Mailbox::new(MOST);
    assert!(mailbox.push(command(MOST - 1), false).is_ok());
    assert!(mailbox.push(command(1), false).is_ok());
    assert!(mailbox.push(command(1), false).is_err(), "full to the byte");
    assert_eq!(mailbox.bytes(), MOST);
    assert!(mailbox.push(read(), false).is_ok());
    assert!(mailbox.push(Mail::Stop, true).is_ok());
    assert_eq!(mailbox.push_messages(NodeId(2), vec![message(&[MOST / 2])]), 0, "counted apart");
    assert_eq!(taken(&mailbox), [1]);
    assert_eq!(mailbox.bytes(), 0);
    assert!(mailbox.push(command(3 * MOST), false).is_ok(), "where nothing else waits");
    assert!(mailbox.push(command(1), false).is_err());
    mailbox.take(&mut Vec::new(), None);
    assert!(mailbox.push(command(1), false).is_ok(), "there is room again");
}

#[test]
fn of_messages_those_with_entries_are_dropped_first() {
    let mailbox = Mailbox::<u64>::new(MOST);
    let from = NodeId(2);
    let mixed = || vec![message(&[]), message(&[2_000, 2_000]), message(&[])];
    assert_eq!(mailbox.push_messages(from, mixed()), 0);
    assert_eq!(mailbox.push_messages(from, mixed()), 0);
    assert_eq!(mailbox.push_messages(from, mixed()), 1, "the third one with entries");
    assert!(mailbox.push(command(MOST), false).is_ok(), "counted apart");
    assert_eq!(taken(&mailbox), [0, 2, 0, 0, 2, 0, 0, 0]);

    // However long it lasts, those without entries keep to their bound, too.
    assert_eq!(mailbox.push_messages(from, vec![message(&[3 * MOST])]), 0, "nothing else waits");
    assert_eq!(mailbox.push_messages(from, mixed()), 3);
    assert_eq!(taken(&mailbox), [1]);
    let small = size_of(&message(&[]));
    let mut kept = 0;
    while mailbox.push_messages(from, vec![message(&[])]) == 0 {
        kept += 1;
        assert!(kept * small <= 2 * MOST, "they are bounded");
    }
    assert_eq!(kept, 2 * MOST / small);
    assert_eq!(taken(&mailbox).len(), kept);
}

#[test]
fn a_closed_mailbox_takes_nothing() {
    let mailbox = Mailbox::new(MOST);
    assert!(mailbox.push(command(1), false).is_ok());
    assert_eq!(mailbox.close().len(), 1);
    assert!(mailbox.push(command(1), true).is_err());
    assert_eq!(mailbox.push_messages(NodeId(2), vec![message(&[]), message(&[1])]), 2);
}
