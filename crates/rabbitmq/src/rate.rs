//! Owns how many messages a second an operator allows, with the bounds of that number. Pure.

use std::str::FromStr;
use std::time::Duration;

/// Most messages a second: a number from 0.001 to 1e9, so that every time that is computed from it exists.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(f64);

impl Rate {
    pub fn per_second(self) -> f64 {
        self.0
    }

    /// How long this many messages take.
    pub fn duration_of(self, messages: usize) -> Duration {
        Duration::try_from_secs_f64(messages as f64 / self.0).unwrap_or(Duration::MAX)
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    /// From a number such as `500`, also written `500/s`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let number = text.strip_suffix("/s").unwrap_or(text).trim_end();
        let rate = number.parse().map_err(|_| "expected messages a second, such as 500")?;
        if (0.001..=1e9).contains(&rate) { Ok(Rate(rate)) } else { Err("expected messages a second, 0.001 to 1e9") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_bounds() {
        for (text, rate) in [("500", 500.0), (" 500/s ", 500.0), ("0.001", 0.001), ("1e9", 1e9), ("5 /s", 5.0)] {
            assert_eq!(text.parse::<Rate>().map(Rate::per_second), Ok(rate), "{text}");
        }
        for text in ["", "/s", "1e-30", "0", "-1", "-0", "inf", "NaN", "1e10", "1e400", "500/s/s", "5x"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_longest_time_is_a_time() {
        let slowest: Rate = "0.001".parse().unwrap();
        assert_eq!(slowest.duration_of(500), Duration::from_secs(500_000));
        assert!(slowest.duration_of(usize::MAX) >= Duration::from_secs(1_000_000));
    }
}
