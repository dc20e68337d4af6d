//! The rules of names: what a peer calls a file, made safe to be written beneath the download directory.

use crate::names::UserName;

use super::limits::NAME_BYTES_MAX;

/// The longest ending (`.mp4`) that is kept when a name is shortened, in bytes.
const ENDING_BYTES_MAX: usize = 24;

/// Names that mean a device on some systems, whatever their ending.
const DEVICES: [&str; 22] = [
    "CON", "PRN", "AUX", "NUL", "COM1", "COM2", "COM3", "COM4", "COM5", "COM6", "COM7", "COM8", "COM9", "LPT1", "LPT2",
    "LPT3", "LPT4", "LPT5", "LPT6", "LPT7", "LPT8", "LPT9",
];

/// The name under which a received file is stored: one component, `SENDER_NAME.EXT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafeName(String);

impl SafeName {
    /// Makes the name that a sender gave to a file safe; `None` if nothing of it names a file (`..`, `a/`).
    ///
    /// Only the last component counts. What a terminal, a shell or a file system could take for something else becomes
    /// `_`: controls, characters that turn the direction of text or are invisible, and `\ : * ? " < > |`.
    pub fn new(sender: UserName, offered: &str) -> Option<Self> {
        let last = offered.rsplit(['/', '\\']).next().unwrap_or_default();
        if last.chars().all(|character| character == '.' || character.is_whitespace()) {
            return None;
        }
        let cleaned: String = last.chars().map(|character| if is_safe(character) { character } else { '_' }).collect();
        let mut name = shorten(&format!("{sender}_{cleaned}"));
        while name.ends_with(['.', ' ']) {
            name.pop();
        }
        if name.starts_with(['.', '-']) {
            name.replace_range(..1, "_");
        }
        if is_device(&name) {
            name.insert(0, '_');
        }
        Some(Self(name))
    }

    /// The name with a number before its ending, `SENDER_NAME (1).EXT`; 0 gives the name as it is.
    pub fn numbered(&self, number: u32) -> String {
        if number == 0 {
            return self.0.clone();
        }
        let (stem, ending) = split_ending(&self.0);
        format!("{stem} ({number}){ending}")
    }
}

fn is_safe(character: char) -> bool {
    !(character.is_control() || is_invisible(character) || matches!(character, ':' | '*' | '?' | '"' | '<' | '>' | '|'))
}

/// Characters of the Unicode category Cf (format, among them all that turn the direction of text), the separators of
/// lines and paragraphs, the fillers that show nothing, and what is no character at all.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{AD}' | '\u{34F}' | '\u{600}'..='\u{605}' | '\u{61C}' | '\u{6DD}' | '\u{70F}' | '\u{890}'..='\u{891}'
        | '\u{8E2}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}'
        | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{FFFD}'..='\u{FFFF}' | '\u{110BD}' | '\u{110CD}'
        | '\u{13430}'..='\u{1343F}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    DEVICES.iter().any(|device| device.eq_ignore_ascii_case(stem))
}

/// Cuts a name to [`NAME_BYTES_MAX`], at the end of its stem, so that its ending still tells what it is.
fn shorten(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    let (stem, ending) = split_ending(name);
    let (stem, ending) = if ending.len() <= ENDING_BYTES_MAX { (stem, ending) } else { (name, "") };
    let mut end = NAME_BYTES_MAX - ending.len();
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", &stem[..end])
}

fn split_ending(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn safe(sender: &str, offered: &str) -> Option<String> {
        SafeName::new(sender.parse().unwrap(), offered).map(|name| name.numbered(0))
    }

    #[test]
    fn a_name_is_the_senders_and_the_last_component() {
        let cases = [
            ("a.mp4", "yoda_a.mp4"),
            ("../../x", "yoda_x"),
            ("/etc/passwd", "yoda_passwd"),
            ("C:\\temp\\b.txt", "yoda_b.txt"),
            (".bashrc", "yoda_.bashrc"),
            ("a\nb\u{1b}[2J\0c", "yoda_a_b_[2J_c"),
            ("gpj.\u{202e}exe", "yoda_gpj._exe"),
            ("a:b*c?d\"e<f>g|h", "yoda_a_b_c_d_e_f_g_h"),
            ("trailing. . ", "yoda_trailing"),
            ("Ünïcode 日本.txt", "yoda_Ünïcode 日本.txt"),
        ];
        for (offered, name) in cases {
            assert_eq!(safe("yoda", offered).as_deref(), Some(name), "{offered:?}");
        }
    }

    #[test]
    fn what_names_no_file_is_refused() {
        for offered in ["", ".", "..", "...", "a/", "/", "\\", "a/..", " ", "\u{3000}"] {
            assert_eq!(safe("yoda", offered), None, "{offered:?}");
        }
    }

    #[test]
    fn a_sender_cannot_hide_a_file_or_make_it_an_option_or_a_device() {
        assert_eq!(safe(".x", "a").as_deref(), Some("_x_a"));
        assert_eq!(safe("-rf", "a").as_deref(), Some("_rf_a"));
        assert_eq!(safe("con.a", "b").as_deref(), Some("_con.a_b"));
    }

    #[test]
    fn a_long_name_is_cut_in_its_stem() {
        let name = safe("yoda", &format!("{}.tar.gz", "ä".repeat(300))).unwrap();
        assert!(name.len() <= NAME_BYTES_MAX && name.len() > NAME_BYTES_MAX - 2 && name.ends_with("ä.gz"), "{name}");
        let name = safe("yoda", &format!("a.{}", "b".repeat(300))).unwrap();
        assert_eq!(name.len(), NAME_BYTES_MAX);
    }

    #[test]
    fn a_number_stands_before_the_ending() {
        let name = SafeName::new("yoda".parse().unwrap(), "a.tar.gz").unwrap();
        assert_eq!(
            [0, 1, 12].map(|number| name.numbered(number)),
            ["yoda_a.tar.gz", "yoda_a.tar (1).gz", "yoda_a.tar (12).gz"]
        );
        let bare = SafeName::new("yoda".parse().unwrap(), "a").unwrap();
        assert_eq!(bare.numbered(1), "yoda_a (1)");
    }

    proptest! {
        #[test]
        fn whatever_is_offered_becomes_one_plain_component(sender in "[A-Za-z0-9._-]{1,32}", offered in "\\PC{0,300}|(?s).{0,300}|[./\\\\ ]{0,20}") {
            if let Some(name) = SafeName::new(sender.parse().unwrap(), &offered) {
                for name in [name.numbered(0), name.numbered(9_999)] {
                    prop_assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX + 16);
                    prop_assert!(name.chars().all(|c| is_safe(c) && c != '/' && c != '\\'), "{:?}", name);
                    prop_assert!(!name.starts_with(['.', '-']) && !name.ends_with(['.', ' ']), "{:?}", name);
                    prop_assert!(std::path::Path::new(&name).components().count() == 1);
                }
            }
        }
    }
}
