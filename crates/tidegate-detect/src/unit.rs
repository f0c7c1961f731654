//! Units in configuration: what a limit is written in, turned into what messages carry.

use crate::channel::unit;

/// A unit that a limit may be written in.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Unit {
    name: &'static str,
    /// The unit that messages carry.
    of: &'static str,
    /// How much of `of` one of it is.
    factor: f64,
}

const UNITS: [Unit; 9] = [
    of("PSI", "PSI", 1.0),
    of("kPa", "PSI", 0.145_037_737_7),
    of("bar", "PSI", 14.503_773_77),
    of("mH2O", "PSI", 1.422_334_33),
    of("L/min", "L/min", 1.0),
    of("L/s", "L/min", 60.0),
    of("m3/h", "L/min", 1_000.0 / 60.0),
    of("gal/min", "L/min", 3.785_411_784),
    of("%", "%", 1.0),
];

const fn of(name: &'static str, of: &'static str, factor: f64) -> Unit {
    Unit { name, of, factor }
}

/// `value` in `written`, as the unit in which messages carry `channel`.
///
/// # Errors
///
/// In words: an unknown unit, or one that measures something else. A channel that is not one of
/// water has whatever unit its owner gives it, and its limits are taken as they are.
pub fn to_channel(channel: &str, value: f64, written: &str) -> Result<f64, String> {
    let carried = unit(channel);
    if carried.is_empty() || written == carried {
        return Ok(value);
    }
    let known = UNITS.iter().find(|unit| unit.name == written);
    match known {
        Some(unit) if unit.of == carried => Ok(value * unit.factor),
        Some(_) => Err(format!(
            "{channel} is in {carried}, and {written} measures something else"
        )),
        None => Err(format!(
            "unit {written:?} is not known; {channel} takes {}",
            allowed(carried)
        )),
    }
}

fn allowed(carried: &str) -> String {
    let names: Vec<&str> = UNITS
        .iter()
        .filter(|unit| unit.of == carried)
        .map(|unit| unit.name)
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_the_same_quantity_are_converted() {
        let check = |channel, value, written, expected: f64| {
            let got = to_channel(channel, value, written).unwrap();
            assert!(
                (got - expected).abs() < 1e-3,
                "{value} {written} of {channel} is {got}"
            );
        };
        check("pressure_upstream", 4.0, "bar", 58.015);
        check("pressure_upstream", 400.0, "kPa", 58.015);
        check("flow_rate", 2.0, "L/s", 120.0);
        check("flow_rate", 3.0, "L/min", 3.0);
        check("tank_level", 3.0, "furlong", 3.0);
    }

    #[test]
    fn other_quantities_and_unknown_units_are_refused() {
        assert_eq!(
            to_channel("flow_rate", 1.0, "bar").unwrap_err(),
            "flow_rate is in L/min, and bar measures something else"
        );
        assert_eq!(
            to_channel("pressure_upstream", 1.0, "psi").unwrap_err(),
            "unit \"psi\" is not known; pressure_upstream takes PSI, kPa, bar, mH2O"
        );
    }
}
