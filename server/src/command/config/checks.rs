//! Parameters whose values have a syntax of their own. Each check answers the value as `CONFIG GET` tells it.

use super::kind::{Kind, Refusal};
use crate::output_limits::{CLASSES, Class};
use crate::size::parse_size;

/// `seconds changes …`: snapshot schedules.
pub(super) fn save_points(text: &str) -> Result<String, Refusal> {
    const WRONG: Refusal = Refusal::Because("Invalid save parameters");
    let numbers: Vec<i64> = words(text).map(|word| word.parse().map_err(|_| WRONG)).collect::<Result<_, _>>()?;
    let sound = numbers.chunks(2).all(|point| matches!(point, [seconds, changes] if *seconds >= 1 && *changes >= 0));
    match sound {
        true => Ok(numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(" ")),
        false => Err(WRONG),
    }
}

/// Percentiles between 0 and 100.
pub(super) fn percentiles(text: &str) -> Result<String, Refusal> {
    let percentile = |word: &str| match word.parse::<f64>() {
        Ok(percentile) if (0.0..=100.0).contains(&percentile) => Ok(percentile.to_string()),
        Ok(_) => Err(Refusal::Because("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]")),
        Err(_) => Err(Refusal::Because("Invalid latency-tracking-info-percentiles parameters")),
    };
    Ok(words(text).map(percentile).collect::<Result<Vec<_>, _>>()?.join(" "))
}

/// Ticks per second, taken to the nearest number that Redis can keep up with.
pub(super) fn ticks(text: &str) -> Result<String, Refusal> {
    let any = Kind::Integer { least: 0, most: i64::from(i32::MAX) };
    any.parse(text).map(|ticks| ticks.signed().clamp(1, 500).to_string())
}

/// Letters of event classes.
pub(super) fn event_classes(text: &str) -> Result<String, Refusal> {
    match text.chars().all(|letter| "Ag$lshzxeKEtmdn".contains(letter)) {
        true => Ok(text.to_owned()),
        false => Err(Refusal::Because("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")),
    }
}

/// What a signal does: words that do not contradict each other.
pub(super) fn shutdown_words(text: &str) -> Result<String, Refusal> {
    const WORDS: [&str; 5] = ["default", "save", "nosave", "now", "force"];
    let mut said = [false; WORDS.len()];
    for word in words(text) {
        let at = WORDS.iter().position(|known| known.eq_ignore_ascii_case(word)).ok_or(Refusal::NotOneOf(&WORDS))?;
        said[at] = true;
    }
    match said {
        [_, true, true, ..] => Err(Refusal::Because("shutdown options SAVE and NOSAVE can't be used simultaneously")),
        [_, false, false, false, false] if text.is_empty() => Err(Refusal::NotOneOf(&WORDS)),
        [_, false, false, false, false] => Ok("default".to_owned()),
        said => Ok(WORDS
            .iter()
            .zip(said)
            .skip(1)
            .filter(|(_, said)| *said)
            .map(|(word, _)| *word)
            .collect::<Vec<_>>()
            .join(" ")),
    }
}

/// `class hard soft seconds …`, told in plain bytes.
pub(super) fn output_limits(text: &str) -> Result<String, Refusal> {
    let words: Vec<_> = words(text).collect();
    if words.len() % 4 != 0 {
        return Err(Refusal::Because("Wrong number of arguments in buffer limit configuration."));
    }
    let told = words.chunks_exact(4).map(|words| {
        let name = if words[0].eq_ignore_ascii_case("replica") { "slave" } else { words[0] };
        let class = CLASSES
            .into_iter()
            .find(|class| class.eq_ignore_ascii_case(name))
            .ok_or(Refusal::Because("Invalid client class specified in buffer limit configuration."))?;
        let [hard, soft, seconds] = limits(&words[1..])
            .ok_or(Refusal::Because("Error in hard, soft or soft_seconds setting in buffer limit configuration."))?;
        Ok(format!("{class} {hard} {soft} {seconds}"))
    });
    Ok(told.collect::<Result<Vec<_>, Refusal>>()?.join(" "))
}

/// What [`output_limits`] has told, class by class.
pub(super) fn output_limits_of(told: &str) -> impl Iterator<Item = (usize, Class)> {
    let words: Vec<_> = words(told).collect();
    let classes = words.chunks_exact(4).filter_map(|words| {
        let class = CLASSES.iter().position(|class| *class == words[0])?;
        Some((class, limits(&words[1..])?))
    });
    classes.collect::<Vec<_>>().into_iter()
}

fn limits(words: &[&str]) -> Option<[u64; 3]> {
    let seconds = words[2].parse::<u32>().ok()?;
    Some([parse_size(words[0])?, parse_size(words[1])?, u64::from(seconds)])
}

/// Three numbers between -2000 and 2000.
pub(super) fn oom_scores(text: &str) -> Result<String, Refusal> {
    let words: Vec<_> = words(text).collect();
    if words.len() != 3 {
        return Err(Refusal::Because("wrong number of arguments"));
    }
    match words.iter().all(|word| matches!(word.parse(), Ok(-2000..=2000))) {
        true => Ok(words.join(" ")),
        false => Err(Refusal::Because("Invalid oom-score-adj-values, elements must be between -2000 and 2000.")),
    }
}

/// A title with `{variables}` that Redis knows.
pub(super) fn title_template(text: &str) -> Result<String, Refusal> {
    const VARIABLES: [&str; 7] =
        ["title", "listen-addr", "server-mode", "port", "tls-port", "unixsocket", "config-file"];
    const WRONG: Refusal = Refusal::Because("template format is invalid or contains unknown variables");
    for opened in text.split('{').skip(1) {
        let (variable, _) = opened.split_once('}').ok_or(WRONG)?;
        if !VARIABLES.contains(&variable) {
            return Err(WRONG);
        }
    }
    Ok(text.to_owned())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn save_points_come_in_pairs() {
        assert_eq!(save_points("3600 1 300 100").as_deref(), Ok("3600 1 300 100"));
        assert_eq!(save_points("").as_deref(), Ok(""));
        for wrong in ["1", "0 1", "1 -1", "x 1", "1 1 1"] {
            assert!(save_points(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_are_told_in_bytes() {
        let told = output_limits("NORMAL 1kb 0 5 replica 1mb 0 0").expect("good limits");
        assert_eq!(told, "normal 1024 0 5 slave 1048576 0 0");
        assert_eq!(output_limits_of(&told).collect::<Vec<_>>(), [(0, [1024, 0, 5]), (1, [1 << 20, 0, 0])]);
        for wrong in ["normal 1 1", "master 1 1 1", "normal x 1 1", "normal 1 1 -1"] {
            assert!(output_limits(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shutdown_words_are_told_in_one_order() {
        assert_eq!(shutdown_words("now NOSAVE").as_deref(), Ok("nosave now"));
        assert_eq!(shutdown_words("default").as_deref(), Ok("default"));
        assert!(shutdown_words("save nosave").is_err());
        assert!(shutdown_words("later").is_err());
    }

    #[test]
    fn templates_know_their_variables() {
        assert!(title_template("{title} at {port}").is_ok());
        assert!(title_template("{invalid-var}").is_err());
        assert!(title_template("{title").is_err());
    }
}
