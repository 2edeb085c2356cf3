"""What each baseline needs beyond the shared forecasters and schedules: drifts and corrections of forecasts."""
