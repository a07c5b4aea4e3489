//! Addresses: refused with a sentence that says what to write.

#![allow(clippy::unwrap_used)]

use super::{advertised, bind};

#[test]
fn an_advertised_address_names_one_place() {
    let bound = "127.0.0.1:20160".parse().unwrap();
    assert_eq!(advertised("", bound).unwrap(), "127.0.0.1:20160");
    assert_eq!(advertised("store-1.local:20160", bound).unwrap(), "store-1.local:20160");
    assert_eq!(advertised("[::1]:20160", bound).unwrap(), "[::1]:20160");
    for (bad, word) in [
        ("store-1", "HOST:PORT"),
        ("store-1:", "port"),
        ("store-1:0", "port 0"),
        ("store-1:70000", "1 to 65535"),
        (":20160", "host is missing"),
        ("http://store-1:20160", "scheme"),
        ("0.0.0.0:20160", "every address"),
        ("[::]:20160", "every address"),
    ] {
        let refusal = advertised(bad, bound).unwrap_err().to_string();
        assert!(refusal.contains(word), "{refusal} does not say {word:?}");
        assert!(refusal.contains("advertise"), "{refusal} does not name the knob");
    }
    let everywhere = "0.0.0.0:20160".parse().unwrap();
    let refusal = advertised("", everywhere).unwrap_err().to_string();
    assert!(refusal.contains("set advertise"), "{refusal}");
}

#[test]
fn a_port_in_use_is_said_to_be() {
    let (_first, bound) = bind("listen", "127.0.0.1:0").unwrap();
    let address = bound.to_string();
    let refusal = bind("listen", &address).unwrap_err().to_string();
    assert!(refusal.contains(&format!("{address} is taken by another process")), "{refusal}");
    let refusal = bind("listen", "nowhere").unwrap_err().to_string();
    assert!(refusal.contains("\"nowhere\" cannot be used"), "{refusal}");
}
