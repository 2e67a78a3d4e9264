//! The rules of GNU `getopt_long`: options and operands in any order, long names cut short, short ones bundled.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// An option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec<K> {
    /// What it is to the caller.
    pub(super) key: K,
    /// Its long name.
    pub(super) long: &'static str,
    /// Its letter.
    pub(super) short: Option<u8>,
    /// Whether it needs a value.
    pub(super) takes_value: bool,
}

/// A command line, taken apart.
#[derive(Debug)]
pub(super) struct Parsed<K> {
    /// The options up to the first mistake, in order, each with its value.
    pub(super) options: Vec<(K, Option<OsString>)>,
    /// The first mistake, in glibc's words.
    pub(super) mistake: Option<String>,
    /// What is no option.
    pub(super) operands: Vec<OsString>,
}

/// Takes apart `arguments`, without the program's name; `posix` (`POSIXLY_CORRECT`) ends options at the first operand.
pub(super) fn getopt<K: Copy>(specs: &[Spec<K>], arguments: &[OsString], posix: bool) -> Parsed<K> {
    let mut parsed = Parsed { options: Vec::new(), mistake: None, operands: Vec::new() };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        let taken = match bytes {
            b"--" => {
                parsed.operands.extend(rest.cloned());
                return parsed;
            }
            [b'-', b'-', long @ ..] => long_option(specs, long, &mut rest).map(|option| parsed.options.push(option)),
            [b'-', letters @ ..] if !letters.is_empty() => {
                short_options(specs, letters, &mut rest, &mut parsed.options)
            }
            _ => {
                parsed.operands.push(argument.clone());
                if posix {
                    parsed.operands.extend(rest.cloned());
                    return parsed;
                }
                Ok(())
            }
        };
        if let Err(mistake) = taken {
            parsed.mistake = Some(mistake);
            return parsed;
        }
    }
    parsed
}

fn long_option<'a, K: Copy>(
    specs: &[Spec<K>],
    text: &[u8],
    rest: &mut impl Iterator<Item = &'a OsString>,
) -> Result<(K, Option<OsString>), String> {
    let (name, value) = match text.iter().position(|&byte| byte == b'=') {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
        None => (text, None),
    };
    let spec = find(specs, name).map_err(|possible| no_option(text, &possible))?;
    match (spec.takes_value, value) {
        (false, Some(_)) => Err(format!("option '--{}' doesn't allow an argument", spec.long)),
        (false, None) => Ok((spec.key, None)),
        (true, Some(value)) => Ok((spec.key, Some(OsString::from_vec(value.to_vec())))),
        (true, None) => match rest.next() {
            Some(value) => Ok((spec.key, Some(value.clone()))),
            None => Err(format!("option '--{}' requires an argument", spec.long)),
        },
    }
}

/// The option with this name, or the only one that begins so; otherwise all that do.
fn find<'a, K>(specs: &'a [Spec<K>], name: &[u8]) -> Result<&'a Spec<K>, Vec<&'static str>> {
    if let Some(exact) = specs.iter().find(|spec| spec.long.as_bytes() == name) {
        return Ok(exact);
    }
    let possible: Vec<&Spec<K>> = specs.iter().filter(|spec| spec.long.as_bytes().starts_with(name)).collect();
    match possible.as_slice() {
        [only] => Ok(only),
        several => Err(several.iter().map(|spec| spec.long).collect()),
    }
}

fn no_option(text: &[u8], possible: &[&str]) -> String {
    let shown = String::from_utf8_lossy(text);
    if possible.is_empty() {
        return format!("unrecognized option '--{shown}'");
    }
    let names: String = possible.iter().map(|name| format!(" '--{name}'")).collect();
    format!("option '--{shown}' is ambiguous; possibilities:{names}")
}

fn short_options<'a, K: Copy>(
    specs: &[Spec<K>],
    letters: &[u8],
    rest: &mut impl Iterator<Item = &'a OsString>,
    options: &mut Vec<(K, Option<OsString>)>,
) -> Result<(), String> {
    let mut letters = letters;
    while let [letter, others @ ..] = letters {
        let shown = String::from_utf8_lossy(std::slice::from_ref(letter));
        let spec = specs.iter().find(|spec| spec.short == Some(*letter));
        let spec = spec.ok_or_else(|| format!("invalid option -- '{shown}'"))?;
        if !spec.takes_value {
            options.push((spec.key, None));
            letters = others;
            continue;
        }
        let value = match others {
            [] => rest.next().cloned(),
            glued => Some(OsStr::from_bytes(glued).to_owned()),
        };
        let value = value.ok_or_else(|| format!("option requires an argument -- '{shown}'"))?;
        options.push((spec.key, Some(value)));
        return Ok(());
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SPECS: [Spec<char>; 5] = [
        Spec { key: 'd', long: "directory", short: Some(b'D'), takes_value: true },
        Spec { key: 'n', long: "dry-run", short: Some(b'n'), takes_value: false },
        Spec { key: 'p', long: "progress", short: Some(b'P'), takes_value: false },
        Spec { key: 'q', long: "progress-bar", short: None, takes_value: false },
        Spec { key: 's', long: "server", short: None, takes_value: true },
    ];

    /// What a line comes to: options with their values, operands, and the mistake.
    fn shown(arguments: &[&str], posix: bool) -> String {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let parsed = getopt(&SPECS, &arguments, posix);
        let mut words: Vec<String> = Vec::new();
        for (key, value) in parsed.options {
            words.push(value.map_or(key.to_string(), |value| format!("{key}={}", value.to_str().unwrap())));
        }
        words.extend(parsed.operands.iter().map(|operand| format!("[{}]", operand.to_str().unwrap())));
        words.extend(parsed.mistake);
        words.join(" ")
    }

    #[test]
    fn command_lines() {
        let cases: [(&[&str], &str); 21] = [
            (&[], ""),
            (&["-n", "-P"], "n p"),
            (&["-nPD", "x"], "n p d=x"),
            (&["-nDPx", "y"], "n d=Px [y]"),
            (&["-D", "-n"], "d=-n"),
            (&["--directory=x", "--server", "y"], "d=x s=y"),
            (&["--directory", "--dry-run"], "d=--dry-run"),
            (&["--dir=", "--dr"], "d= n"),
            (&["--server=a=b"], "s=a=b"),
            (&["a", "-n", "b", "--", "-P", "--"], "n [a] [b] [-P] [--]"),
            (&["-", "-n"], "n [-]"),
            (&["--progress"], "p"),
            (&["--progress-"], "q"),
            (&["--prog"], "option '--prog' is ambiguous; possibilities: '--progress' '--progress-bar'"),
            (&["--d=1"], "option '--d=1' is ambiguous; possibilities: '--directory' '--dry-run'"),
            (&["-n", "--bogus=1", "-P"], "n unrecognized option '--bogus=1'"),
            (&["--dry=1"], "option '--dry-run' doesn't allow an argument"),
            (&["--serv"], "option '--server' requires an argument"),
            (&["-nD"], "n option requires an argument -- 'D'"),
            (&["-nzP"], "n invalid option -- 'z'"),
            (
                &["--=x"],
                "option '--=x' is ambiguous; possibilities: '--directory' '--dry-run' '--progress' '--progress-bar' '--server'",
            ),
        ];
        for (arguments, expected) in cases {
            assert_eq!(shown(arguments, false), expected, "{arguments:?}");
        }
        assert_eq!(shown(&["-n", "a", "-P"], true), "n [a] [-P]");
    }

    #[test]
    fn bytes_that_are_no_text() {
        let odd = OsString::from_vec(b"-D\xff".to_vec());
        let parsed = getopt(&SPECS, &[odd], false);
        assert_eq!(parsed.options.first().unwrap().1.as_ref().unwrap().as_bytes(), b"\xff");
        let odd = OsString::from_vec(b"-\xff".to_vec());
        assert_eq!(getopt(&SPECS, &[odd], false).mistake.unwrap(), "invalid option -- '\u{fffd}'");
    }
}
