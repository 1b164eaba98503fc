//! The names of the studies, and the rows that most of them print.

use clap::ValueEnum;
use fovea_eval::page;
use serde::Serialize;

/// The setting that is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Study {
    /// The text-guided sampler's threshold.
    Gamma,
    /// The layer whose input the text-guided sampler prunes: Fig. 2.
    Layers,
    /// A fixed share of the visual tokens instead of the threshold: 100, 80, 60, 40, 20 %.
    ///
    /// Shares of the vision-guided sampler's output; the most important tokens are kept. The heuristic of the paper's Table 7
    /// is a separate method: `fovea-lab compare --methods heuristic`.
    Budget,
    /// The scales that the vision-guided sampler selects: picture by picture, then least, mean and most over all pictures and
    /// by kind of scene. Fig. 3.
    Scales,
    /// Random scales from three seeds, selected scales, and every token: Table 6. The text-guided sampler is off.
    Sampler,
    /// The importance of the tokens at each layer, and heat maps of the first picture: Fig. 5 and 10.
    Maps,
    /// The tokens that each question keeps, the overlap between two questions about one picture, and a figure of the first
    /// pictures: Fig. 8 and 9.
    Questions,
}

impl Study {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gamma => "gamma",
            Self::Layers => "layers",
            Self::Budget => "budget",
            Self::Scales => "scales",
            Self::Sampler => "sampler",
            Self::Maps => "maps",
            Self::Questions => "questions",
        }
    }

    /// What its rows are: the name of the first column.
    const fn rows(self) -> &'static str {
        match self {
            Self::Scales => "picture",
            Self::Maps => "layer",
            Self::Questions => "questions",
            Self::Gamma | Self::Layers | Self::Budget | Self::Sampler => "setting",
        }
    }
}

/// The numbers of one row.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The setting; or the picture, layer or kind of question that the row is about.
    pub setting: String,
    /// Names and values.
    pub values: Vec<(String, f64)>,
}

/// Rows as text, shares in percent, NaN as a dash, and so is the standard error of equal answers. All rows have the
/// same names.
pub fn page(study: Study, rows: &[Found]) -> String {
    let column = |(name, _): &(String, f64)| match name.as_str() {
        "samples_per_s" => "samples/s".to_owned(),
        "equivalent_share" => "equivalent %".to_owned(),
        "standard_error" => "error %".to_owned(),
        "object_overlap" => "on objects %".to_owned(),
        "tokens" | "kept" => name.clone(),
        share => format!("{share} %"),
    };
    let value = |(name, value): &(String, f64)| match name.as_str() {
        _ if value.is_nan() => "-".to_owned(),
        "standard_error" if *value == 0.0 => "-".to_owned(),
        "samples_per_s" | "tokens" | "kept" => format!("{value:.1}"),
        _ => page::percent(*value),
    };
    let names = rows.first().into_iter().flat_map(|r| &r.values).map(column);
    let header: Vec<String> = [study.rows().to_owned()].into_iter().chain(names).collect();
    let cells =
        |r: &Found| -> Vec<String> { [r.setting.clone()].into_iter().chain(r.values.iter().map(value)).collect() };
    page::columns(&header, &rows.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_column_says_what_the_rows_are() {
        let values = |error| vec![("right".to_owned(), 1.0), ("standard_error".to_owned(), error)];
        let rows =
            [("a", 0.0), ("b", 0.01)].map(|(setting, error)| Found { setting: setting.into(), values: values(error) });
        for (study, first) in [(Study::Scales, "picture"), (Study::Maps, "layer"), (Study::Gamma, "setting")] {
            let text = page(study, &rows);
            let words: Vec<&str> = text.split_whitespace().collect();
            let expected = [first, "right", "%", "error", "%", "a", "100.0", "-", "b", "100.0", "1.0"];
            assert_eq!(words, expected, "{study:?} (got, expected)");
        }
    }
}
