//! Reports that placement takes, however long the keys are.

use quorate_proto::limits::MAX_KEY_BYTES;
use quorate_proto::wire::metapb;

use super::*;

fn reported(count: usize, key_bytes: usize) -> Vec<RegionReport> {
    let key = bytes::Bytes::from(vec![7; key_bytes]);
    let region = metapb::Region { start_key: key.clone(), end_key: key, ..Default::default() };
    vec![RegionReport { region: Some(region), ..RegionReport::default() }; count]
}

#[test]
fn a_full_report_of_long_keys_is_cut_into_messages_that_placement_takes() {
    let mut rest = reported(REGIONS_A_MESSAGE, MAX_KEY_BYTES);
    let whole = StoreReport { regions: rest.clone(), ..StoreReport::default() };
    assert!(whole.encoded_len() > MAX_FRAME_BYTES, "one message would be too large");
    let mut messages = 0;
    while !rest.is_empty() {
        let more = rest.split_off(fitting(&rest));
        let message = StoreReport { regions: rest, ..StoreReport::default() };
        assert!(message.encoded_len() <= BYTES_A_MESSAGE + 64);
        (rest, messages) = (more, messages + 1);
    }
    assert!((2..10).contains(&messages), "{messages} messages");
}

#[test]
fn many_short_ones_are_cut_by_number_and_none_is_a_message_of_its_own() {
    assert_eq!(fitting(&reported(REGIONS_A_MESSAGE + 1, 1)), REGIONS_A_MESSAGE);
    assert_eq!(fitting(&[]), 0);
    assert_eq!(fitting(&reported(1, BYTES_A_MESSAGE)), 1, "one that fits nowhere is sent alone");
}
