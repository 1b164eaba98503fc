//! Writes one image with many scenes, for inspection: `sheet FILE [scenes|drills] [FIRST] [unscaled]`. `unscaled` selects
//! scenes with one pixel per unit.

use std::error::Error;

use fovea_scenes::{Scene, Split};
use image::imageops::{FilterType, overlay, resize};
use image::{Rgb, RgbImage};

/// Columns and rows of pictures.
const GRID: (u32, u32) = (5, 3);
/// Side of a cell, in pixels.
const CELL: u32 = 390;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = arguments.first().map_or("sheet.png", String::as_str);
    let drills = arguments.get(1).is_some_and(|what| what == "drills");
    let first: u64 = arguments.get(2).map_or(Ok(0), |number| number.parse())?;
    let only_unscaled = arguments.get(3).is_some_and(|what| what == "unscaled");
    let mut sheet = RgbImage::from_pixel(GRID.0 * CELL, GRID.1 * CELL, Rgb([0, 0, 0]));
    let scene = |index| if drills { Scene::drill(index) } else { Scene::new(Split::Train, index) };
    let wanted = (first..).map(scene).filter(|scene| !only_unscaled || scene.scale() == 1.0);
    for (cell, scene) in (0..GRID.0 * GRID.1).zip(wanted) {
        let picture = scene.picture();
        let times = (CELL / picture.width().max(picture.height())).max(1);
        let enlarged = resize(picture, picture.width() * times, picture.height() * times, FilterType::Nearest);
        let (x, y) = (cell % GRID.0 * CELL, cell / GRID.0 * CELL);
        overlay(&mut sheet, &enlarged, i64::from(x), i64::from(y));
        if !drills {
            println!("{cell}: canvas {:?} scale {}", scene.canvas(), scene.scale());
            for question in scene.one_of_each() {
                println!("  {} {}", question.question, question.answer);
            }
        }
    }
    sheet.save(file)?;
    Ok(())
}
