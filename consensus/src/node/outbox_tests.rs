//! An outbox keeps order and bounds, and drops the newest.

use futures::{FutureExt, StreamExt};

use super::*;
use quorate_proto::wire::peer::Entry;

fn numbered(number: u64) -> Envelope {
    Envelope { index: number, ..Envelope::default() }
}

fn sized(bytes: usize) -> Envelope {
    let entry = Entry { data: vec![0; bytes].into(), ..Entry::default() };
    Envelope { entries: vec![entry], ..Envelope::default() }
}

fn frames(outbox: &Arc<Outbox>) -> Frames {
    Frames { outbox: outbox.clone(), hello: None, counters: Arc::default() }
}

/// The frames that can be had now, and whether the stream has ended.
fn drain(frames: &mut Frames) -> (Vec<Frame>, bool) {
    let mut all = Vec::new();
    loop {
        match frames.next().now_or_never() {
            Some(Some(frame)) => all.push(frame),
            Some(None) => return (all, true),
            None => return (all, false),
        }
    }
}

#[test]
fn the_handshake_comes_first_and_messages_stay_in_order() {
    let outbox = Arc::new(Outbox::default());
    outbox.set_up(true);
    assert_eq!(outbox.push((0..3).map(numbered)), 0);
    assert_eq!(outbox.push((3..5).map(numbered)), 0);
    outbox.beat(Beat { incarnation: 1, sequence: 1, ..Beat::default() });
    outbox.beat(Beat { incarnation: 1, sequence: 2, ..Beat::default() });
    let mut stream = Frames { hello: Some(Hello::default()), ..frames(&outbox) };
    let (all, ended) = drain(&mut stream);
    assert!(!ended);
    assert_eq!(all.len(), 2, "the handshake, then everything at once");
    assert!(all[0].hello.is_some() && all[0].envelopes.is_empty());
    let order: Vec<u64> = all[1].envelopes.iter().map(|envelope| envelope.index).collect();
    assert_eq!(order, [0, 1, 2, 3, 4]);
    assert_eq!(
        all[1].beat,
        Some(Beat { incarnation: 1, sequence: 2, ..Beat::default() }),
        "only the latest beat"
    );
}

#[test]
fn the_newest_messages_are_dropped_and_counted() {
    let outbox = Arc::new(Outbox::default());
    outbox.set_up(true);
    let more = CAPACITY as u64 + 10;
    assert_eq!(outbox.push((0..more).map(numbered)), 10);
    let (all, _) = drain(&mut frames(&outbox));
    let last = all.last().unwrap().envelopes.last().unwrap().index;
    assert_eq!(last, CAPACITY as u64 - 1);
    // There is room again.
    assert_eq!(outbox.push([numbered(0)]), 0);
}

#[test]
fn bytes_are_bounded_and_frames_are_smaller() {
    let outbox = Arc::new(Outbox::default());
    outbox.set_up(true);
    let size = 1024 * 1024;
    let dropped = outbox.push((0..100).map(|_| sized(size)));
    let kept = 100 - dropped;
    assert!(kept * size <= CAPACITY_BYTES && (kept + 1) * (size + 88) > CAPACITY_BYTES);
    let (all, _) = drain(&mut frames(&outbox));
    assert!(all.len() > 1);
    assert!(all.iter().all(|frame| frame.encoded_len() <= MAX_FRAME_BYTES));
    let sent: usize = all.iter().map(|frame| frame.envelopes.len()).sum();
    assert_eq!(sent, kept);
}

#[test]
fn a_link_that_is_down_keeps_little_and_its_end_drops_all() {
    let outbox = Arc::new(Outbox::default());
    let more = CAPACITY_DOWN as u64 + 1;
    assert_eq!(outbox.push((0..more).map(numbered)), 1);
    // What waited for the link leaves once it is up.
    assert_eq!(outbox.set_up(true), 0);
    assert_eq!(outbox.set_up(false), CAPACITY_DOWN);
    assert_eq!(outbox.set_up(false), 0);
    assert!(drain(&mut frames(&outbox)).0.is_empty());
}

#[test]
fn a_closed_outbox_ends_its_stream_after_the_last_message() {
    let outbox = Arc::new(Outbox::default());
    outbox.push([numbered(1)]);
    outbox.close();
    let (all, ended) = drain(&mut frames(&outbox));
    assert_eq!(all.len(), 1);
    assert!(ended && outbox.is_closed());
}
