//! Dependencies point down only.

/// Each crate with those of ours that it may use.
const ARROWS: [(&str, &[&str]); 7] = [
    ("proto", &[]),
    ("consensus", &["proto"]),
    ("client", &["proto"]),
    ("placement", &["consensus", "proto"]),
    ("store", &["client", "consensus", "proto"]),
    ("cli", &["client", "consensus", "placement", "proto", "store"]),
    ("tests", &["client", "consensus", "placement", "proto", "store"]),
];

/// What is wrong with the dependencies in `FOLDER/Cargo.toml`.
pub fn point_down(folder: &str, manifest: &str) -> Result<(), String> {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == folder) else {
        return Err("is not in the list of crates: say what it may use".to_owned());
    };
    for line in manifest.lines() {
        let Some(name) = line.trim().strip_prefix("quorate-") else { continue };
        let name: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
        if !allowed.contains(&name.as_str()) {
            return Err(format!("uses {name}, but may use only {allowed:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_that_point_up_or_sideways_are_caught() {
        let uses = |name: &str| format!("[dependencies]\nquorate-{name}.workspace = true\n");
        assert!(point_down("store", &uses("consensus")).is_ok());
        assert!(point_down("store", &uses("placement")).is_err());
        assert!(point_down("placement", &uses("store")).is_err());
        assert!(point_down("placement", &uses("client")).is_err());
        assert!(point_down("client", &uses("consensus")).is_err());
        assert!(point_down("elsewhere", "").is_err());
    }
}
