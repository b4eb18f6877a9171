"""From trained models to forecasts: stacked prediction, faster variants, and the forecast table."""
