//! Input: a picture and its visual tokens. Output: the picture on a canvas, with the cells of the map over it.

use fovea_model::{Looked, Picture, VisualToken};
use fovea_runtime::TokenBox;

use crate::{
    canvas::{Area, Canvas, Color, mix},
    colors::{self, NEUTRAL},
    fate::Fate,
    place::Placement,
    scales::Fineness,
};

/// Paints `picture` with its top left corner at `corner`: bright under kept tokens, half dark under merged ones, dark
/// under dropped ones and where no token is. The tint is for tokens without a rank.
pub fn paint(
    canvas: &mut Canvas,
    picture: &Picture,
    corner: [i32; 2],
    tokens: impl Iterator<Item = (Area, Fate, Option<Color>)>,
) {
    let pixels = picture.rgb().as_chunks::<3>().0;
    let (width, height) = (picture.width() as i32, picture.height() as i32);
    let at = |x: i32, y: i32| pixels[((y - corner[1]) * width + x - corner[0]) as usize];
    canvas.map(&Area::of(corner[0], corner[1], width, height), |x, y, _| colors::dimmed(at(x, y)));
    for (area, fate, tint) in tokens {
        let Fate::Kept { rank, merged } = fate else { continue };
        canvas.map(&area, |x, y, _| {
            let pixel = at(x, y);
            let lit = match (rank, tint) {
                (Some(rank), _) => colors::heated(pixel, rank),
                (None, Some(tint)) => mix(pixel, tint, 0.14),
                (None, None) => pixel,
            };
            if merged { colors::merged(pixel, lit) } else { lit }
        });
    }
}

/// The part of the drawing that shows the map.
pub struct Map<'a> {
    /// The data of the overlay.
    pub looked: &'a Looked,
    /// Its visual tokens.
    pub tokens: &'a [VisualToken],
    /// The fate of each of them.
    pub fates: &'a [Fate],
    /// The position of the map.
    pub place: Placement<'a>,
}

impl Map<'_> {
    /// The patches of the region that holds a token, and the color of its scale; `None` without the vision-guided sampler.
    fn region(
        &self,
        token: &VisualToken,
        [y, x, ..]: TokenBox,
        regions: &[TokenBox],
        fineness: &Fineness,
    ) -> Option<(TokenBox, Color)> {
        let scale = token.scale?;
        let region = regions.get(self.looked.region_at(y, x)?)?;
        let index = self.looked.scales.iter().position(|&other| other == scale)?;
        Some((*region, fineness.color(index)))
    }

    /// Paints `picture`, which has the size of the drawing, and the cells over it.
    pub fn paint(&self, canvas: &mut Canvas, picture: &Picture) {
        let fineness = Fineness::of(&self.looked.scales);
        let regions = self.looked.regions();
        let cell = |(token, patches, fate): (&VisualToken, TokenBox, Fate)| {
            Some((self.place.area(patches)?, patches, fate, self.region(token, patches, &regions, &fineness)))
        };
        // A merged token has several cells, with the same fate; tokens of the thumbnail and class tokens have none.
        let cells: Vec<_> = self
            .tokens
            .iter()
            .zip(self.fates)
            .flat_map(|(token, &fate)| token.patches.iter().map(move |&patches| (token, patches, fate)))
            .filter_map(cell)
            .collect();
        let painted = cells.iter().map(|(area, _, fate, region)| (area.clone(), *fate, region.map(|(_, tint)| tint)));
        paint(canvas, picture, [self.place.left, 0], painted);
        for (area, patches, fate, region) in cells {
            self.lines(canvas, area, patches, fate, region);
        }
    }

    /// Draws the upper and left edge of a token inside its region, and its part of the border of the region.
    fn lines(
        &self,
        canvas: &mut Canvas,
        Area { x, y }: Area,
        patches: TokenBox,
        fate: Fate,
        region: Option<(TokenBox, Color)>,
    ) {
        let (inner, border) = match (region, fate) {
            (None, Fate::Dropped) => (0.06, 0.06),
            (None, _) => (0.16, 0.16),
            (_, Fate::Dropped) => (0.25, 0.5),
            (_, _) => (0.55, 0.95),
        };
        // thicker where patches are large, as in a model with few patches
        let thick = (self.place.to[0] / self.looked.grid.width.max(1) / 24).clamp(1, 2) as i32;
        let (around, color) = region.unwrap_or((patches, NEUTRAL));
        let outer = |edge: usize| region.is_some() && patches[edge] == around[edge];
        let line = |edge: usize| if outer(edge) { (thick, border) } else { (1, inner) };
        let ((top, top_opacity), (left, left_opacity)) = (line(0), line(1));
        canvas.fill(&Area { x: x.clone(), y: y.start..y.start + top }, color, top_opacity);
        canvas.fill(&Area { x: x.start..x.start + left, y: y.start + top..y.end }, color, left_opacity);
        let foot = if outer(2) { y.end - thick } else { y.end };
        canvas.fill(&Area { x: x.start + left..x.end, y: foot..y.end }, color, border);
        if outer(3) {
            canvas.fill(&Area { x: x.end - thick..x.end, y: y.start + top..foot }, color, border);
        }
    }
}
