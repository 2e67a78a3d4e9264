//! Text from outside made harmless: no character of it moves the cursor, hides, or turns the direction of writing.

/// The text with every character that shows nothing, or changes how others are shown, as an escape: `\n`, `\u{202e}`.
///
/// What remains is one line, and as wide as it looks.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if is_treacherous(c) { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    plain
}

/// The same for text of several lines, which stay lines.
#[must_use]
pub fn plain_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(plain).collect();
    lines.join("\n")
}

/// A line of JSON, the same value, with every such character as `\uXXXX`.
#[must_use]
pub fn plain_json(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    for c in line.chars() {
        if is_treacherous(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                plain.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Whether a character is a control, invisible, or one that reorders its neighbours.
fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}'
            | '\u{8e2}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{d7b0}'..='\u{d7ff}' | '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1345f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{10ffff}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthChar;

    use super::*;

    #[test]
    fn what_deceives_is_shown() {
        let cases = [
            ("public.orders", "public.orders"),
            (
                "gr\u{fc}\u{df}e \u{65e5}\u{672c} <script> | ` @user #1",
                "gr\u{fc}\u{df}e \u{65e5}\u{672c} <script> | ` @user #1",
            ),
            ("\x1b[31mred", "\\u{1b}[31mred"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("a\u{202e}b\u{2066}c", "a\\u{202e}b\\u{2066}c"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
            ("a\u{2028}b\u{2029}\u{85}", "a\\u{2028}b\\u{2029}\\u{85}"),
            ("a\nb\r\tc\u{7f}\0", "a\\nb\\r\\tc\\u{7f}\\u{0}"),
            ("\u{e0041}\u{3164}", "\\u{e0041}\\u{3164}"),
        ];
        for (text, shown) in cases {
            assert_eq!(plain(text), shown);
        }
        assert_eq!(plain_lines("a\nb\x1b\n"), "a\nb\\u{1b}\n");
    }

    #[test]
    fn json_stays_the_same_value() {
        let text = "a\u{9b}b\u{202e}\u{e0041}\u{feff}\u{2028}\"\\\u{1f600}";
        let line = serde_json::to_string(text).unwrap();
        let shown = plain_json(&line);
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        assert!(shown.chars().all(|c| !is_treacherous(c)) && shown.contains("\\u009b") && shown.contains('\u{1f600}'));
    }

    proptest! {
        /// Whatever unicode-width takes for a control is gone, and nothing is escaped twice.
        #[test]
        fn nothing_that_deceives_remains(text in any::<String>()) {
            let shown = plain(&text);
            prop_assert!(shown.chars().all(|c| !is_treacherous(c) && c.width().is_some()));
            prop_assert_eq!(plain(&shown), shown);
        }
    }
}
