"""Five pictures of one made-up subject: a round orange robot with an antenna and a blue belly.

Drawn here, so that the demo needs nobody's photographs. The same five every time.
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

PROMPT = "a photo of sks robot"
"""The rare word, then the class, as DreamBooth wants it."""
SIDE = 256
"""Pixels. Four times the nano bases' native size, so that a crop still has edges to show."""
_OVER = 4
"""Drawn larger by this and scaled down: Pillow's shapes have hard edges."""

ORANGE, DARK_ORANGE = (240, 130, 35), (190, 90, 20)
BLUE, LIGHT_BLUE = (45, 105, 210), (120, 175, 245)
WHITE, BLACK, RED = (252, 250, 245), (30, 28, 38), (225, 45, 55)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """Where the robot stands. Lengths and places are shares of the picture's side."""

    x: float
    y: float
    radius: float
    tilt_degrees: float
    wall: Colour
    floor: Colour
    horizon: float


SCENES = (
    Scene(0.50, 0.58, 0.33, 0, (176, 208, 220), (122, 148, 120), 0.74),
    Scene(0.44, 0.60, 0.29, 9, (236, 214, 176), (172, 132, 96), 0.70),
    Scene(0.57, 0.57, 0.31, -7, (196, 186, 222), (112, 104, 140), 0.72),
    Scene(0.52, 0.61, 0.27, -12, (190, 222, 190), (228, 220, 196), 0.66),
    Scene(0.48, 0.59, 0.34, 5, (96, 104, 128), (64, 68, 84), 0.78),
)


def pictures() -> list[Image.Image]:
    return [draw(scene) for scene in SCENES]


def save_pictures(folder: Path) -> list[Path]:
    """Writes ``robot-1.png`` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"robot-{number}.png" for number in range(1, len(SCENES) + 1)]
    for path, picture in zip(paths, pictures(), strict=True):
        picture.save(path)
    return paths


def cutout(side: int) -> Image.Image:
    """The robot alone on nothing, RGBA, filling a square of ``side`` pixels."""
    robot = _robot(side)
    robot = robot.crop(robot.getbbox())
    square = Image.new("RGBA", (max(robot.size), max(robot.size)))
    square.paste(robot, ((square.width - robot.width) // 2, (square.height - robot.height) // 2))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def draw(scene: Scene) -> Image.Image:
    side = SIDE * _OVER
    picture = _room(scene, side)
    robot = _robot(round(scene.radius * side)).rotate(
        scene.tilt_degrees, resample=Image.Resampling.BICUBIC
    )
    corner = (
        round(scene.x * side - robot.width / 2),
        round(scene.y * side - robot.height / 2),
    )
    picture.paste(robot, corner, robot)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _room(scene: Scene, side: int) -> Image.Image:
    """A wall, a floor, and the robot's shadow on it."""
    picture = Image.new("RGB", (side, side), scene.wall)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, scene.horizon * side, side, side), fill=scene.floor)
    shade = tuple(round(part * 0.7) for part in scene.floor)
    x, y, wide = scene.x * side, (scene.y + 1.14 * scene.radius) * side, scene.radius * side
    pen.ellipse((x - wide, y - wide * 0.16, x + wide, y + wide * 0.16), fill=shade)
    return picture


def _robot(r: int) -> Image.Image:
    """The robot alone on nothing; ``r`` is its body's radius in pixels, its body the centre."""
    robot = Image.new("RGBA", (4 * r, 4 * r))
    pen = ImageDraw.Draw(robot)
    _limbs(pen, r)
    _antenna(pen, r)
    _disc(pen, r, 0, 0, 1.0, ORANGE, rim=DARK_ORANGE)
    _disc(pen, r, 0, 0.40, 0.46, BLUE)
    _disc(pen, r, -0.14, 0.26, 0.13, LIGHT_BLUE)
    for eye in (-0.36, 0.36):
        _disc(pen, r, eye, -0.34, 0.25, WHITE)
        _disc(pen, r, eye + 0.04, -0.31, 0.13, BLACK)
    return robot


def _limbs(pen: ImageDraw.ImageDraw, r: int) -> None:
    for side in (-1, 1):
        _disc(pen, r, side * 1.02, 0.22, 0.20, DARK_ORANGE)
        _disc(pen, r, side * 0.45, 1.02, 0.24, BLACK)


def _antenna(pen: ImageDraw.ImageDraw, r: int) -> None:
    pen.line((2 * r, 1.1 * r, 2 * r, 0.5 * r), fill=BLACK, width=round(0.12 * r))
    _disc(pen, r, 0, -1.5, 0.19, RED)


def _disc(
    pen: ImageDraw.ImageDraw,
    r: int,
    x: float,
    y: float,
    radius: float,
    fill: Colour,
    rim: Colour | None = None,
) -> None:
    """A disc, its place and size in body radii from the body's centre."""
    box = [(2 + offset) * r for offset in (x - radius, y - radius, x + radius, y + radius)]
    pen.ellipse(box, fill=fill, outline=rim, width=round(0.07 * r) if rim else 0)
