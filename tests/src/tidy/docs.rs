//! Links in our own pages lead somewhere.

use std::path::{Component, Path, PathBuf};

/// The targets of links in a page that are files of ours, as paths from the root.
pub fn links(page: &str, text: &str) -> Vec<PathBuf> {
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    let mut targets = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("](") {
        let Some((target, behind)) = after.split_once(')') else { break };
        rest = behind;
        let path = target.split(['#', ' ']).next().unwrap_or("");
        let elsewhere = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
        if !elsewhere {
            targets.push(normal(&folder.join(path)));
        }
    }
    targets
}

/// Files below `docs/` that code and pages speak of: `docs/ARCHITECTURE.md`.
pub fn mentions(text: &str) -> Vec<PathBuf> {
    let part_of_path = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let mut found = Vec::new();
    for word in text.split(|c: char| !part_of_path(c)) {
        let word = word.trim_end_matches(['.', '/']);
        if word.starts_with("docs/") && word.ends_with(".md") {
            found.push(PathBuf::from(word));
        }
    }
    found
}

fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop();
            }
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => parts.push(part),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_from_their_page() {
        let text = "[a](ARCHITECTURE.md#map) [b](../README.md) [c](https://example.org) [d](#x)";
        let found = links("docs/README.md", text);
        assert_eq!(found, [PathBuf::from("docs/ARCHITECTURE.md"), PathBuf::from("README.md")]);
    }

    #[test]
    fn mentions_in_prose_are_found() {
        assert_eq!(
            mentions("see `docs/adr/0001-x.md`, or docs/ARCHITECTURE.md."),
            [PathBuf::from("docs/adr/0001-x.md"), PathBuf::from("docs/ARCHITECTURE.md")]
        );
        assert!(mentions("decisions go to `docs/adr/`").is_empty());
    }
}
