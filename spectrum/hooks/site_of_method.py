"""Which site a method works at."""

from torch import nn

from spectrum.core.method import Method, Site
from spectrum.hooks.exit_site import ExitSite, FrontExitSite
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.module_site import ModuleSite
from spectrum.hooks.output_site import OutputSite
from spectrum.hooks.site import CacheSite


def site_of(model: nn.Module, layout: Denoiser | None, method: Method) -> CacheSite:
    """The site that a method asks for, on one denoiser.

    Raises:
        SpectrumError: if the denoiser has nothing at that site, or the method's other settings do not go with it.
    """
    if method.site is Site.output:
        return OutputSite(model, layout, method)
    assert layout is not None
    if method.site is Site.modules:
        return ModuleSite(model, layout, method)
    return (FrontExitSite if method.front_blocks else ExitSite)(model, layout, method)
